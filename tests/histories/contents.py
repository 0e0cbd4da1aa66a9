# SPDX-License-Identifier: Apache-2.0

"""What may happen to base files, and to what is known of them.

Each step is a word and a number, from which it takes what it has to choose.
"""

import collections
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import dataclasses
import errno
import os
from typing import Any
from typing import TypeVar

from nova_imagecache.cache import base_file
from nova_imagecache.cache import directories
from nova_imagecache.cache import scans
from nova_imagecache.cache import states
from nova_imagecache.cache import trash
from nova_imagecache.content import digests
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache.passes import pipeline
from nova_imagecache.scrub import confirmation
from nova_imagecache.scrub import one_file
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import schedule
from nova_imagecache.scrub import verification
from tests.histories import judges
from tests.histories import media
from tests.histories import papers
from tests.histories import worlds

BLOCK = media.BLOCK
Image = media.Image
_T = TypeVar('_T')

#: What may happen, the more often the likelier; first what does least.
STEPS = (
    'touch', *['scrub'] * 8, *['verify'] * 4, *['make_pass'] * 3,
    *['stopped'] * 4, *['touched'] * 3, *['disturbed'] * 4,
    *['transient'] * 2, *['unsynced'] * 2, *['full'] * 2, *['killed'] * 3,
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


class History(judges.Judge):
    """One history."""

    def __init__(
        self, world: media.World, counts: collections.Counter[str]
    ) -> None:
        """Begin with a pass of each host, as the first thing they do."""
        super().__init__(world, counts)
        self._effects = judges.Effects()
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

    def _pick(self, choices: Sequence[_T]) -> _T:
        self._number, index = divmod(self._number, len(choices))
        return choices[index]

    def _image(self) -> Image:
        first, second, third = self._world.images.values()
        # Few, so that much happens to each.
        return self._pick([first, first, first, second, third, third])

    def _block(self, image: Image) -> int:
        return self._pick(range(image.count))

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
        if not schedule.settled(file, state.sighting(file)):
            return
        known = queues.entry_of(file, state).known
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
            [self._flip_one, self._repair_one, self._fail_one, self._write_one]
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
        self._pick([self._read, self._verify_one])(image)

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
        except errors.Error:
            state = states.State()
        file = base_file.BaseFile.named(world.layout, image.name)
        findings, _failure = verification.verify(
            world.settings,
            [file],
            state,
            world.now,
            readers.no_progress_bar,
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
        world.boottime = 0.0
        world.advance(600.0)
        for image in world.images.values():
            image.past.add('reboot')
        self._effects.silent = True

    def _algorithm(self) -> None:
        algorithm = self._pick(digests.ALGORITHMS)
        self._world.configure(checksum_algorithm=algorithm)
        self._effects.silent = True

    # What a file holds.

    def _touch(self) -> None:
        self._world.touch(self._image().path)
        self._effects.silent = True

    def _write(self) -> None:
        self._write_one(self._image())

    def _write_one(self, image: Image) -> None:
        """Write to a file as whoever makes it does."""
        found = papers.Papers.of(self._world.layout, image.name)
        open_blocks = [*found.unsettled & {*range(image.count)}]
        known = 'settled' in image.past or found.newer
        if known or not open_blocks or found.sidecar:
            return
        block = self._pick(open_blocks)
        start = block * BLOCK
        length = len(media.block_of(image.truth, block))
        data = media.make_content(self._number, '#')[:length]
        image.truth = (
            image.truth[:start] + data + image.truth[start + length :]
        )
        image.past.add('changed')
        self._world.write(image, start, data)
        self._world.touch(image.path)

    def _resize(self) -> None:
        """Have a file grow, or be cut, while it is made."""
        image = self._image()
        found = papers.Papers.of(self._world.layout, image.name)
        if found.ledger or found.sidecar or image.past:
            return
        size = len(image.truth) + self._pick([-BLOCK, -5, 5, BLOCK])
        image.truth = image.truth[:size].ljust(size, b'\0')
        image.past.add('changed')
        os.truncate(image.path, size)
        self._world.touch(image.path)

    def _flip(self) -> None:
        self._flip_one(self._image())

    def _flip_one(self, image: Image) -> None:
        """Damage a block, which is to have other bytes each time."""
        start = self._block(image) * BLOCK + self._pick(range(700))
        data = worlds.read(image.path)[start : start + 1]
        if data:
            self._world.write(image, start, bytes([data[0] ^ 8]))
            image.past |= {'changed', 'damaged'}

    def _repair(self) -> None:
        self._repair_one(self._image())

    def _repair_one(self, image: Image) -> None:
        for block in image.damaged:
            self._world.write(
                image, block * BLOCK, media.block_of(image.truth, block)
            )
            image.past.add('changed')

    def _fail(self) -> None:
        self._fail_one(self._image())

    def _fail_one(self, image: Image) -> None:
        """Have a block be unreadable, from its start or its middle."""
        image.eio[self._block(image)] = self._pick([0, 1024])

    def _heal(self) -> None:
        """Have a disk read again what it could not."""
        self._image().eio.clear()

    def _remap(self) -> None:
        """Have a disk put zeros in the place of what it cannot read."""
        image = self._image()
        for block in image.eio:
            length = len(media.block_of(image.truth, block))
            self._world.write(image, block * BLOCK, bytes(length))
            image.past |= {'changed', 'damaged'}
        image.eio.clear()

    # Other files of the same name.

    def _put(self, image: Image, data: bytes, past: str) -> None:
        image.past |= {past, 'settled'}
        self._world.put(image, data)

    def _copy(self) -> None:
        """Copy a file, what is known of it before or after or not at all."""
        image, order = self._image(), self._pick(['after', 'before', 'not'])
        if image.eio:
            return
        sidecar = image.path + '.sha1'
        if order == 'before':
            self._world.copy(sidecar)
        self._put(image, worlds.read(image.path), 'replaced')
        if self._pick([False, False, True]):
            self._flip_one(image)
        if order == 'after':
            self._world.copy(sidecar)

    def _refetch(self) -> None:
        """Fetch the same image anew, on another place of the disk."""
        image = self._image()
        image.eio.clear()
        self._put(image, image.truth, 'replaced')

    def _reform(self) -> None:
        """Fetch an image in another form."""
        image, seed = self._image(), self._world.tick()
        kinds = self._pick(['###', '#0####', '##'])
        # Never of a size that it had.
        tail = 1001 + seed // 1000 % 1000
        self._make_anew(image, media.make_content(seed, kinds, tail))

    def _swap_anew(self) -> None:
        """Make a file anew that is no image's, with other bytes."""
        image = self._pick(
            [each for each in self._world.images.values() if not each.original]
        )
        kinds = ''.join(
            '#' if any(media.block_of(image.truth, index)) else '0'
            for index in range(image.count - 1)
        )
        self._make_anew(image, media.make_content(self._world.tick(), kinds))

    def _make_anew(self, image: Image, truth: bytes) -> None:
        image.truth = truth
        image.eio.clear()
        # Whatever was found in another file.
        image.past -= {'damaged', 'wrong', 'eio'}
        self._put(image, truth, 'reformed')

    def _trash(self) -> None:
        """Move a file to the trash, and back."""
        image, layout = self._image(), self._world.layout
        self._effects.product = True
        file = base_file.BaseFile.named(layout, image.name)
        with directories.opened(layout.base, follow=True) as base_fd:
            name = trash.move_in(file, base_fd, self._world.wall)
        if self._pick([True, False]):
            self._pass(inline=False)
        trash.move_out(base_file.BaseFile.named(layout, name, trashed=True))

    # What is known.

    def _lost(self, image: Image) -> None:
        image.past |= {'lost', 'settled'}

    def _ledger(self, image: Image) -> str:
        self._lost(image)
        return self._world.layout.ledger(image.name)

    def _lose(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _lose_ledger(self) -> None:
        self._lose(self._ledger(self._image()))

    def _truncate_ledger(self) -> None:
        path = self._ledger(self._image())
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, 60)

    def _spoil_payload(self) -> None:
        path = self._ledger(self._image())
        record = papers.load(path)
        if record is not None and record.payload:
            data = worlds.read(path)
            with open(path, 'wb') as file:
                file.write(data[:-1] + bytes([data[-1] ^ 1]))

    def _lose_sidecar(self) -> None:
        image = self._image()
        self._lost(image)
        self._lose(image.path + '.sha1')

    def _spoil_sidecar(self) -> None:
        self._store('garbage')

    def _wrong_sidecar(self) -> None:
        self._store('ab' * 20).past.add('wrong')

    def _store(self, text: str) -> Image:
        image = self._image()
        self._lost(image)
        with open(image.path + '.sha1', 'w') as file:
            file.write(text)
            self._world.bear(os.fstat(file.fileno()).st_ino)
        return image

    def _lose_both(self) -> None:
        image = self._image()
        self._lose(self._ledger(image))
        self._lose(image.path + '.sha1')

    def _lose_state(self) -> None:
        self._lose(self._world.layout.state)
        for image in self._world.images.values():
            # Until each host has made a pass, another one's boots are strange.
            image.past.add('strange')

    # Other releases.

    def _records(self) -> list[tuple[str, str]]:
        layout = self._world.layout
        paths = [('ledger', layout.ledger(name)) for name in media.FILES]
        return [('state', layout.state), *paths]

    def _downgrade(self) -> None:
        """Have all records be those of the release before."""
        for kind, path in self._records():
            record = papers.load(path)
            older = record and papers.older(kind, record)
            if older is not None:
                papers.write(path, kind, older)
        self._effects.silent = True

    def _supersede(self) -> None:
        """Have a record be one of a newer release, or that one gone."""
        kind, path = self._pick(self._records())
        record = papers.load(path)
        if record is None or record.payload is None:
            return
        version = record.version + (10 if record.version < 10 else -10)
        papers.write(path, kind, dataclasses.replace(record, version=version))

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
