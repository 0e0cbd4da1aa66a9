# SPDX-License-Identifier: Apache-2.0

"""A node on which one pass does everything at once, and what must survive."""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import fcntl
import hashlib
import os
import shutil

from nova_imagecache.cache import base_file
from nova_imagecache.cache import scans
from nova_imagecache.cache import trash
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import sidecars
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.passes import reports
from tests.support import base
from tests.support import nodes

Verdict = knowledge.Verdict

_TWO_DAYS = 2 * base.DAY


def _name(role: str) -> str:
    return names.get_cache_fname(role)


# Guests have overlays over these.
USED = _name('used')
UNCHECKED = _name('used, and the next pass makes its checksum')
LOST = _name('used, with a ledger, and a checksum that was lost')
BAD = _name('used, and known to be corrupt')
NEEDED = _name('in the trash, and a guest needs it')

# Nobody uses these, and the next pass moves them to the trash.
KNOWN = _name('old, with a ledger and a checksum')
PLAIN = _name('old, without')
# These are in the trash, and old enough to be deleted.
OLD = _name('deleted, with a ledger and a checksum')
OLD_PLAIN = _name('deleted, without')
# Too young to go; seen once, so that its checksum is made.
RESIZED = _name('young') + '_20'
# Too young to go; its ledger is garbage.
GARBLED = 'swap_64'

DELETABLE = frozenset({OLD, OLD_PLAIN})

_STRAY = f'{_name("stray")}.0123abcd.sha1'


def _read(path: str) -> bytes:
    with open(path, 'rb') as file:
        return file.read()


class CrashNode(nodes.Node):
    """The node.

    :ivar content: what is in each base file and leftover
    :ivar sha1: of what was in it at first
    :ivar chains: base files that a guest needs
    :ivar baseline: base files of which something is known
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._overlays: dict[str, bytes] = {}
        self._empty()

    def _empty(self) -> None:
        self.clock = base.FakeClock()
        shutil.rmtree(self.layout.instances)
        os.makedirs(self.layout.base)
        self.configure(
            checksum=True,
            checksum_interval=7 * base.DAY,
            remove_unused=False,
        )
        self.content: dict[str, bytes] = {}
        self.sha1: dict[str, str] = {}
        self.chains: set[str] = set()
        self.baseline: set[str] = set()

    def renew_without_traces(self) -> None:
        """Set up, from nothing, what stock Nova leaves, seen long ago."""
        self._empty()
        self._add(USED, age=_TWO_DAYS)
        self._add_guest(USED)
        self._add(PLAIN, age=_TWO_DAYS)
        self.configure(remove_unused=True)

    def renew(self) -> None:
        """Set everything up, from nothing, at the same paths."""
        self._empty()
        self.baseline = {USED, LOST, BAD, NEEDED, KNOWN, GARBLED}
        for name in (USED, LOST, BAD, KNOWN, GARBLED):
            self._add(name)
        for name in (NEEDED, OLD):
            self._add(name, age=_TWO_DAYS)
        for name in (USED, LOST, BAD):
            self._add_guest(name)
        self.run()
        nodes.flip_bit(self.base_path(BAD))
        self.content[BAD] = _read(self.base_path(BAD))
        self.make_pass().verify_now([BAD])
        self._add(OLD_PLAIN, age=_TWO_DAYS)
        self._add(RESIZED)
        self.configure(remove_unused=True)
        self.clock.advance(60)
        self.run()
        for name in (KNOWN, USED):
            self.set_age(name, _TWO_DAYS)
        self._add(PLAIN, age=_TWO_DAYS)
        self._add(UNCHECKED)
        for name in (UNCHECKED, NEEDED):
            self._add_guest(name)
        os.unlink(self.base_path(f'{LOST}.sha1'))
        os.truncate(self.layout.ledger(GARBLED), 10)
        self._add_husks()
        self.clock.advance(2 * base.HOUR)
        self.set_age(RESIZED, 600)

    def _add(self, name: str, age: float = 0) -> None:
        self.content[name] = _read(self.add_base(name, age=age))
        digest = hashlib.sha1(self.content[name], usedforsecurity=False)
        self.sha1[name] = digest.hexdigest()

    def _add_guest(self, name: str) -> None:
        self.chains.add(name)
        # Made once: the paths are always the same.
        if name not in self._overlays:
            there = os.path.exists(self.base_path(name))
            if not there:
                self.add_base(name, data=self.content[name])
            path = self.add_overlay(f'guest-{name}', name)
            self._overlays[name] = _read(path)
            if not there:
                os.unlink(self.base_path(name))
        self.add_file(f'guest-{name}', 'disk', data=self._overlays[name])

    def _add_husks(self) -> None:
        """Leave behind what is to be cleared away."""
        for name in ('gone.part', 'gone.converted', 'gone.sha1'):
            sha1 = _name('gone')
            self._add(name.replace('gone', sha1), age=_TWO_DAYS)
        for path in (
            self.layout.ledger(_name('gone')),
            os.path.join(self.layout.trash, _STRAY),
            os.path.join(self.layout.temporary, 'scratch'),
        ):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'w') as file:
                file.write('x')

    def _places(self, name: str) -> list[str]:
        """Say where a base file is, in the cache and in the trash."""
        found = [
            file.path
            for file in trash.scan(self.layout).files
            if file.original == name
        ]
        path = self.base_path(name)
        return found + [path] * os.path.lexists(path)

    def damage(self) -> Iterator[str]:
        """Name what must not be, at whatever moment a pass is killed."""
        for name, content in self.content.items():
            places = self._places(name)
            if not places and name not in DELETABLE:
                yield f'{name} is gone'
            for path in places:
                if _read(path) != content:
                    yield f'{path} is not what it was'
                yield from self._false_knowledge(name, path)

    def _false_knowledge(self, name: str, path: str) -> Iterator[str]:
        """Name what looks valid beside a file, and is not."""
        true = (None, self.sha1[name])
        if sidecars.read_stored_checksum(path) not in true:
            yield f'{path}.sha1 is wrong'
        try:
            ledger = self.ledger(path)
        except errors.Damaged as error:
            if name != GARBLED:
                yield f'the ledger of {path} is damaged: {error}'
            return
        if ledger is None:
            return
        if ledger.sha1 not in true:
            yield f'the ledger of {path} has a wrong SHA-1'
        if ledger.bad and name != BAD:
            yield f'the ledger of {path} has bad blocks'

    def ledger(self, path: str) -> ledgers.Ledger | None:
        """Read what is known of a base file, wherever it is."""
        name = os.path.basename(path)
        trashed = names.trashed_name(name) is not None
        return ledgers.Ledger.load(
            base_file.BaseFile.named(self.layout, name, trashed)
        )

    def _forgotten(self) -> Iterator[str]:
        """Name what was known before, and is not, or is made anew."""
        for name in self.baseline:
            for path in self._places(name):
                ledger = self.ledger(path)
                if ledger is None or ledger.sha1 != self.sha1[name]:
                    yield f'{path} has lost its ledger'
                elif ledger.rebaselined is not None:
                    yield f'{path} was rebaselined'
                elif (name == BAD) != bool(ledger.bad):
                    yield f'{path} has lost its bad blocks, or has some'
                if sidecars.read_stored_checksum(path) is None:
                    yield f'{path} has lost its checksum'

    def _verdicts(self, report: reports.Report) -> Iterator[str]:
        for file in report.files:
            want = Verdict.CORRUPT if file.name == BAD else Verdict.GOOD
            if file.kind.is_base and file.checksum is not want:
                yield f'{file.name} is {file.checksum}: {file.reason}'

    def _held(self) -> Iterator[str]:
        for directory in (self.layout.locks, self.layout.own_locks):
            with contextlib.suppress(FileNotFoundError):
                yield from self._held_in(directory)

    def _held_in(self, directory: str) -> Iterator[str]:
        for name in os.listdir(directory):
            with open(os.path.join(directory, name), 'a') as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    yield f'the lock {name} is held'

    def _husks(self) -> Iterator[str]:
        """Name what is left in our own directories, and should not be."""
        present = {file.name for file in scans.scan(self.layout).files}
        for path in (self.layout.trash, self.layout.temporary):
            with contextlib.suppress(FileNotFoundError):
                yield from (f'{path} has {name}' for name in os.listdir(path))
        for name in os.listdir(self.layout.ledgers):
            if name.removesuffix('.damaged') not in present:
                yield f'there is a ledger of {name}'
        yield from (f'{name} is still there' for name in present - self.chains)

    def converge(self) -> Iterator[str]:
        """Make the passes after; name what is not as it must be then."""
        yield from self._held()
        self.clock.advance(60)
        yield from self._clean(self.run(), GARBLED)
        yield from self.damage()
        for name in self.chains:
            if self.base_path(name) not in self._places(name):
                yield f'{name} is not in the cache'
        self.configure(checksum_interval=0)
        # Whatever is not known well is read again.
        for _pass in range(2):
            self.clock.advance(600)
            report = self.run()
        yield from self._clean(report)
        yield from self._verdicts(report)
        yield from self._forgotten()
        yield from self.damage()
        for _pass in range(3):
            self.clock.advance(_TWO_DAYS)
            yield from self._clean(self.run())
        yield from self._husks()
        for name in self.chains:
            if self._places(name) != [self.base_path(name)]:
                yield f'{name} is not in the cache in the end, or not only'

    def _clean(self, report: reports.Report, *excused: str) -> Iterable[str]:
        """Name the problems of a pass that nothing has disturbed."""
        return [
            f'a clean pass says: {problem}'
            for problem in (*report.vetoes, *report.problems)
            if not any(name in problem for name in excused)
        ]
