# SPDX-License-Identifier: Apache-2.0

"""A node of which not all is to be seen, and passes over it as its owner."""

import contextlib
import os
from typing import Any

from nova_imagecache import host
from nova_imagecache import names
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from nova_imagecache.witnesses import instances
from nova_imagecache.witnesses import panel
from nova_imagecache.witnesses import vetoing
from tests.support import base
from tests.support import nodes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'
THIRD = '33333333-cccc-4ccc-8ccc-000000000003'
OLD = 365 * base.DAY

Reason = vetoing.Reason


class SeeingTestCase(nodes.NodeTestCase):
    """A node with one base file in use, and one that may go.

    :ivar used: the name of the one
    :ivar free: the name of the other
    :ivar roots: paths that stay root's
    :ivar lent: what the host lends to a pass
    """

    def setUp(self) -> None:
        super().setUp()
        self.used = self.node.add_image('used', age=OLD)
        self.free = self.node.add_image('free', age=OLD)
        self.disk = self.node.add_overlay(GUEST, self.used)
        self.roots: set[str] = set()
        self.lent = host.Host()

    @property
    def top(self) -> str:
        return self.node.layout.instances

    def path(self, *parts: str) -> str:
        return os.path.join(self.top, *parts)

    def outside(self, *parts: str) -> str:
        """Give a path that is not below instances_path."""
        path = os.path.join(self.temporary, 'elsewhere', *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def stand_on(
        self, reference: str, guest: str = OTHER, disk: str = 'disk'
    ) -> str:
        """Make a disk whose header says this, whatever it means."""
        path = os.path.join(self.node.add_directory(guest), disk)
        nodes.qemu_img('create', '-f', 'qcow2', path, '1M')
        nodes.qemu_img('rebase', '-u', '-b', reference, '-F', 'raw', path)
        return path

    def layer(self, path: str, backing: str) -> str:
        """Make a layer anywhere, over a base file."""
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', self.node.base_path(backing),
            '-F', 'raw', path,
        )  # fmt: skip
        return path

    def make_roots(self, path: str, mode: int = 0) -> str:
        """Have a path be root's alone."""
        self.roots.add(path)
        os.chmod(path, mode)
        return path

    def instance(self, uuid: str = GUEST, **fields: Any) -> dict[str, Any]:
        return {
            'uuid': uuid,
            'name': f'instance-{uuid[:8]}',
            'image_ref': 'used',
            'host': self.node.settings.host,
            'vm_state': 'active',
            'task_state': None,
            **fields,
        }

    def listed(
        self, *guests: dict[str, Any], mappings: Any = None
    ) -> instances.InstanceWitness:
        """Give the witness that has the host's list."""
        return instances.InstanceWitness(
            guests, {} if mappings is None else mappings,
            self.node.settings.host,
        )  # fmt: skip

    def give_away(self) -> None:
        """Have all but what stays root's belong to whoever makes passes."""
        if os.geteuid() != 0:
            return
        for parent, directories, files in os.walk(self.temporary):
            for name in ['.', *directories, *files]:
                path = os.path.normpath(os.path.join(parent, name))
                with contextlib.suppress(FileNotFoundError):
                    owner = 0 if path in self.roots else nodes.NOBODY
                    os.chown(path, owner, owner, follow_symlinks=False)

    def make_pass(self, *witnesses: Any) -> pipeline.Pass:
        return pipeline.Pass(
            self.node.settings,
            witnesses,
            self.node.clock,
            assembly=panel.Assembly(self.lent),
        )

    def run_pass(self, *witnesses: Any) -> reports.Report:
        """Make a pass as the owner of instances_path."""
        self.give_away()
        with nodes.unprivileged():
            return self.make_pass(*witnesses).run()

    def assert_removed(self, report: reports.Report, *names_: str) -> None:
        self.assertEqual(
            {*names_},
            {file.name for file in report.removed},
            '; '.join(report.vetoes),
        )

    def assert_clean(self, report: reports.Report) -> None:
        """Check that there is nothing to say."""
        self.assertEqual(
            ((), (), (), ()),
            (report.vetoes, report.withheld, report.problems, report.notes),
        )

    def veto(self, report: reports.Report) -> vetoing.Veto:
        """Give the one that there is."""
        (veto,) = report.obstacles
        return veto

    def spy(self) -> list[str]:
        """Note the path of all that passes open or list from now on."""
        seen: list[str] = []
        for name in ('open', 'scandir', 'listdir'):
            self._spy_on(name, seen)
        return seen

    def _spy_on(self, name: str, seen: list[str]) -> None:
        real = getattr(os, name)

        def spy(path: Any = '.', *args: Any, **kwargs: Any) -> Any:
            if os.geteuid() != 0 and not isinstance(path, int):
                seen.append(os.fspath(path))
            return real(path, *args, **kwargs)

        self.patch(os, name, spy)


def image(name: str) -> str:
    """Give the name of the base file of an image."""
    return names.get_cache_fname(name)
