# SPDX-License-Identifier: Apache-2.0

"""What may happen to base files, and what is done with them.

Each step is a word and a number, from which it takes what it has to choose.
"""

import collections
from collections.abc import Callable
import contextlib
import errno
import os
from typing import Any

from nova_imagecache.cache import base_file
from nova_imagecache.cache import scans
from nova_imagecache.cache import states
from nova_imagecache.cache import trash
from nova_imagecache.content import digests
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache.passes import pipeline
from nova_imagecache.scrub import confirmation
from nova_imagecache.scrub import courses
from nova_imagecache.scrub import one_file
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import recalling
from nova_imagecache.scrub import schedule
from nova_imagecache.scrub import verification
from tests.histories import damages
from tests.histories import judges
from tests.histories import media
from tests.histories import papers
from tests.histories import worlds

Image = media.Image

#: What may happen, the more often the likelier; first what does least.
STEPS = (
    'touch', *['scrub'] * 8, *['scrub_all'] * 3, *['verify'] * 4,
    *['make_pass'] * 3, *['stopped'] * 4, *['touched'] * 3,
    *['disturbed'] * 4, *['transient'] * 2, *['misread'] * 2,
    *['hidden'] * 2, *['unsynced'] * 2, *['full'] * 2, *['killed'] * 3,
    *['time'] * 3, *['write'] * 2, 'resize', *['flip'] * 4, *['repair'] * 2,
    *['fail'] * 2, *['heal'] * 2, *['remap'] * 2,
    *['lose_ledger'] * 2, 'truncate_ledger', *['spoil_payload'] * 2,
    *['lose_sidecar'] * 2, 'spoil_sidecar', 'wrong_sidecar', 'lose_both',
    'lose_state', *['copy'] * 3, *['refetch'] * 2, 'reform', 'swap_anew',
    'remount', 'shift', *['switch'] * 2, 'reboot', 'algorithm',
    'trash', 'downgrade', *['supersede'] * 2, 'confirm', 'confirm_wrongly',
)  # fmt: skip

_ERRNOS = (
    errno.ESTALE, errno.ENOMEM, errno.EACCES, errno.ETIMEDOUT, errno.EAGAIN,
)  # fmt: skip


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class History(damages.Damages):
    """One history."""

    def __init__(
        self, world: media.World, counts: collections.Counter[str]
    ) -> None:
        """Begin with a pass of each host, as the first thing they do."""
        super().__init__(world, counts)
        for host in reversed(media.HOSTS):
            world.configure(host=host)
            self._pass(inline=False)
        self._looks = self.looks()

    def take(self, step: str, number: int) -> None:
        """Have something happen, and look whether all is well."""
        self._number = number
        self._effects = judges.Effects()
        for image in self._world.images.values():
            image.seen.clear()
        getattr(self, f'_{step}')()
        before, self._looks = self._looks, self.looks()
        self._world.tick()
        self.judge(before, self._looks, self._effects)

    # Scrubs, and what may go wrong with them.

    def _read(self, image: Image, **method: Any) -> None:
        """Scrub one file, as the queue does when it is due."""
        world = self._world
        self._effects.product = True
        now, layout = world.now(), world.layout
        found = {each.name: each for each in scans.scan(layout).files}
        try:
            state = states.sight(layout, now, found.values())
        except (errors.Error, OSError):
            state = states.State()
        file = found[image.name]
        if not schedule.complete(file, state.sighting(file)):
            return
        known = recalling.entry_of(file, state).known
        job = queues.job_of(file, known, state, now, world.settings.host)
        values: dict[str, Any] = {
            'algorithm': world.settings.checksum_algorithm,
            'means': readers.Means(),
            'clock': world.now,
        }
        finding = one_file.scrub(job, one_file.Method(**(values | method)))
        if finding.history is not None:
            histories = {file: finding.history}
            queues.note_histories(layout, histories, state, now)
        self._note(image.name, finding)

    def _note(self, name: str, finding: knowledge.Finding) -> None:
        if not finding.skipped:
            self._effects.findings[name] = finding.verdict

    def _scrub(self) -> None:
        self._read(self._image())

    def _scrub_all(self) -> None:
        for image in self._world.images.values():
            self._read(image)

    def _stopped(self) -> None:
        """Stop a scrub, with what is known so far published or not."""
        image, left = self._image(), self._pick(range(1, 5))
        means = readers.Means()
        blocks = [0]

        def pulse() -> None:
            blocks[0] += 1
            if blocks[0] == left:
                means.stop.set()

        often = self._pick([0, 30])
        self._read(image, means=means, pulse=pulse, checkpoint_seconds=often)

    def _touched(self) -> None:
        """Have guests start during a scrub."""
        image, number = self._image(), self._pick(range(4))
        self._effects.faults = True
        path = image.path
        self._meanwhile(image, number, lambda: self._world.touch(path))

    def _disturbed(self) -> None:
        """Have something happen to a file during a scrub."""
        image, number = self._image(), self._pick(range(8))
        act = self._pick(
            [
                self._flip_one,
                self._repair_one,
                self._fail_one,
                self._write_one,
                self._resize_one,
            ]
        )
        self._effects.faults = True
        self._meanwhile(image, number, lambda: act(image))

    def _meanwhile(
        self, image: Image, number: int, act: Callable[[], None]
    ) -> None:
        self._world.meanwhile = (number, act)
        try:
            self._read(image, checkpoint_seconds=self._pick([30, 0]))
        finally:
            self._world.meanwhile = None

    @contextlib.contextmanager
    def _failing(
        self,
        reading: media.Fault | None = None,
        writing: media.Fault | None = None,
    ) -> Any:
        self._effects.faults = True
        self._world.reading, self._world.writing = reading, writing
        try:
            yield
        except worlds.Crash:
            self.counts['crashes'] += 1
        finally:
            self._world.reading = self._world.writing = None

    def _any_reading(self, image: Image) -> None:
        if self._pick([True, True, False]):
            self._read(image, checkpoint_seconds=self._pick([30, 0]))
        else:
            self._verify_one(image)

    def _misread(self) -> None:
        """Flip a bit on the way from the disk, once."""
        image = self._image()
        look = self._looks[image.name]
        known = {*range(image.count)} <= {*look.papers.digests}
        if not known or look.papers.unsettled or look.another:
            # There is nothing that could tell.
            image.past |= {'misread', 'wrong'}
        self._effects.faults = True
        self._world.spoiling = self._pick(range(6))
        try:
            self._any_reading(image)
        finally:
            self._world.spoiling = None

    def _hidden(self) -> None:
        """Have a record be there which cannot be read just now."""
        image, layout = self._image(), self._world.layout
        self._effects.faults = self._effects.hidden = True
        self._world.hidden = self._pick(
            [layout.ledger(image.name), image.path + '.sha1', layout.state]
        )
        self._world.hidden_by = _error(self._pick([errno.EIO, errno.EACCES]))
        try:
            self._any_reading(image)
        finally:
            self._world.hidden = None

    def _transient(self) -> None:
        """Have a read fail which is not the medium's fault."""
        image, error = self._image(), _error(self._pick(_ERRNOS))
        with self._failing(media.Fault(self._pick(range(6)), error)):
            self._any_reading(image)

    def _unsynced(self) -> None:
        """Have what was not yet on the disk be lost."""
        image = self._image()
        image.past.add('sync')
        self._effects.faults = self._world.sync_fails = True
        try:
            self._read(image)
        finally:
            self._world.sync_fails = False

    def _full(self) -> None:
        """Have a record not be written."""
        image = self._image()
        error = _error(self._pick([errno.ENOSPC, errno.EROFS]))
        fault = media.Fault(
            self._pick(range(6)), error, self._pick([True, False])
        )
        with self._failing(None, fault):
            self._any_reading(image)

    def _killed(self) -> None:
        """End the process at a read, or when it publishes something."""
        image = self._image()
        fault = media.Fault(self._pick(range(7)), worlds.Crash())
        pair = self._pick([(None, fault), (fault, None)])
        with self._failing(*pair):
            self._any_reading(image)

    def _verify(self) -> None:
        self._effects.whole = True
        self._verify_one(self._image())

    def _verify_one(self, image: Image) -> None:
        world = self._world
        self._effects.product = True
        try:
            state = states.load(world.layout)
        except (errors.Error, OSError):
            state = states.State()
        file = base_file.BaseFile.named(world.layout, image.name)
        findings, _failure = verification.verify(
            world.settings,
            [file],
            state,
            world.now,
            courses.no_progress_bar,
            urgent=True,
        )
        self._note(image.name, findings[image.name])

    def _make_pass(self) -> None:
        self._pass(self._pick([False, True]))

    def _pass(self, inline: bool) -> None:
        self._effects.product = True
        world = self._world
        pipeline.Pass(world.settings, (), world.now, inline).run()

    # Time, and hosts.

    def _time(self) -> None:
        self._world.advance(self._pick([600.0, 40000.0, 100000.0]))

    def _remount(self) -> None:
        """See something else of the identity of all files."""
        host = self._world.settings.host
        sees = self._pick(['births', 'generations', 'nothing'])
        self._world.sees[host] = sees
        self._effects.silent = True

    def _shift(self) -> None:
        self._world.shift += 10**9
        self._effects.silent = True

    def _switch(self) -> None:
        """Go on on the other host."""
        first, second = media.HOSTS
        other = second if self._world.settings.host == first else first
        self._world.configure(host=other)
        self._effects.silent = True

    def _reboot(self) -> None:
        world = self._world
        world.boots[world.settings.host] += 1
        world.uptimes[world.settings.host] = 0.0
        world.advance(600.0)
        for image in world.images.values():
            image.past.add('reboot')
        self._effects.silent = True

    def _algorithm(self) -> None:
        algorithm = self._pick(digests.ALGORITHMS)
        self._world.configure(checksum_algorithm=algorithm)
        self._effects.silent = True

    def _trash(self) -> None:
        """Move a file to the trash, and back."""
        image, layout = self._image(), self._world.layout
        self._effects.product = True
        file = base_file.BaseFile.named(layout, image.name)
        # Not twice in the same second.
        self._world.advance(1.0)
        with trash.opened(layout, make=True) as (base_fd, fd):
            mover = trash.Mover(base_fd, fd, self._world.wall)
            name = mover.move(file)
        if self._pick([True, False]):
            self._pass(inline=False)
        trash.move_out(base_file.BaseFile.named(layout, name, trashed=True))

    # Evidence.

    def _confirm(self) -> None:
        image = self._image()
        self._confirm_as(image, papers.sha1(image.truth))

    def _confirm_wrongly(self) -> None:
        self._confirm_as(self._image(), 'cd' * 20)

    def _confirm_as(self, image: Image, sha1: str) -> None:
        world = self._world
        self._effects.product = True
        right = sha1 == papers.sha1(image.truth)
        if right and image.sound:
            self._effects.confirmed = image.name
        file = base_file.BaseFile.named(world.layout, image.name)
        with contextlib.suppress(errors.Error, OSError):
            confirmation.confirm(world.settings, file, sha1, clock=world.now)
