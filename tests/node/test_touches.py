# SPDX-License-Identifier: Apache-2.0

"""The touch of a used file: other managers go by it, so it is in the pass."""

import contextlib
import enum
import itertools
import os
from typing import Any

import hypothesis
from hypothesis import strategies as st

from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache import names
from tests.support import base
from tests.support import fake_witnesses
from tests.support import nodes

_OLD = 365 * base.DAY


class Role(enum.Enum):
    """What a pass is to find of a file."""

    USED = enum.auto()
    GOES = enum.auto()
    YOUNG = enum.auto()
    PINNED = enum.auto()
    COMES_BACK = enum.auto()
    DELETED = enum.auto()
    STRANGE = enum.auto()


TOUCHED = (Role.USED, Role.COMES_BACK)
TRASHED = (Role.COMES_BACK, Role.DELETED)


class Broken(Exception):
    """What no pass expects."""


class TouchTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        # What a disk would do with it is shown elsewhere.
        self.patch(os, 'fsync', lambda _fd: None)
        self.nodes = itertools.count()

    @hypothesis.settings(
        max_examples=30,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        st.lists(st.sampled_from(Role), min_size=1, max_size=8),
        st.sampled_from([None, 'remove', 'empty', 'look']),
    )
    def test_each_used_file_is_touched_in_the_pass_and_none_other(
        self, roles: list[Role], breaks: str | None
    ) -> None:
        """Also where the removal fails, and before anything is noted."""
        self.node = nodes.Node(f'{self.temporary}/{next(self.nodes)}')
        self.node.configure(retention=0)
        files = {f'{index}': role for index, role in enumerate(roles)}
        found = {image: self.add(image, role) for image, role in files.items()}
        used = [found[each] for each in files if files[each] in TOUCHED]
        before = self.times()
        noted: list[dict[str, int]] = []
        remember = states.remember

        def note(*args: Any, **kwargs: Any) -> None:
            noted.append(self.times())
            remember(*args, **kwargs)

        with contextlib.ExitStack() as stack:
            stack.enter_context(base.patched(states, 'remember', note))
            if breaks in ('remove', 'empty'):
                stack.enter_context(base.patched(removal, breaks, self.fails))
            says: Any = fake_witnesses.Sees(*used)
            if breaks == 'look':
                says = fake_witnesses.Meddles(
                    self.fails, users=says.look([]).users
                )
            stack.enter_context(contextlib.suppress(Broken))
            self.node.run(says)
        after = self.times()
        self.assertEqual(
            {*used},
            {name for name in after if after[name] != before[name]},
        )
        for seen in noted:
            self.assertEqual(after, seen)
        if breaks is None:
            self.assertEqual(
                {name for image, name in found.items()
                 if files[image] not in (Role.GOES, Role.DELETED)},
                self.node.files(),
            )  # fmt: skip

    def add(self, image: str, role: Role) -> str:
        """Make a file; give its name."""
        age = base.HOUR if role is Role.YOUNG else _OLD
        if role is Role.STRANGE:
            name = f'strange-{image}'
            self.node.add_base(name, age=age)
            return name
        name = self.node.add_image(image, age=age)
        if role is Role.PINNED:
            self.node.pin(name)
        if role in TRASHED:
            os.makedirs(self.node.layout.trash, exist_ok=True)
            when = self.node.clock.wall - base.DAY
            os.rename(
                self.node.base_path(name),
                os.path.join(
                    self.node.layout.trash, names.trash_name(name, when)
                ),
            )
        return name

    def fails(self, *_args: Any, **_kwargs: Any) -> Any:
        raise Broken

    def times(self) -> dict[str, int]:
        """Say when files were touched last, by what they are called."""
        found = {}
        for path in (self.node.layout.base, self.node.layout.trash):
            with contextlib.suppress(FileNotFoundError):
                for entry in os.scandir(path):
                    if entry.is_file():
                        name = names.trashed_name(entry.name) or entry.name
                        found[name] = entry.stat().st_mtime_ns
        return found
