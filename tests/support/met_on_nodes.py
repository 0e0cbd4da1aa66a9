# SPDX-License-Identifier: Apache-2.0

"""What is met below instances_path of real nodes, and the table of it.

    python -m tests.support.met_on_nodes

prints the table that the operators' page has.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import enum
import json
import os
import socket
import textwrap
from typing import Protocol

from nova_imagecache.witnesses import vetoing

Reason = vetoing.Reason


class Fate(enum.StrEnum):
    """What becomes of base files that nobody is seen to use."""

    GOES = 'Unused base files go.'
    NEEDED = 'It uses the base file that it needs.'
    SOME = 'What its guest may need stays; other unused base files go.'
    ALL = 'Nothing is removed.'


class Place(Protocol):
    """A node with a guest, and how it is spoilt."""

    def at(self, *parts: str) -> str:
        """Give a path below instances_path, in a directory that is there."""
        ...

    def elsewhere(self, *parts: str) -> str:
        """Give a path that is not."""
        ...

    def root(self, path: str, mode: int = 0) -> str:
        """Have a path be root's alone."""
        ...

    def disk_over(self, path: str, base_file: str) -> None:
        """Make a disk over a file."""
        ...

    @property
    def free(self) -> str:
        """Path of the base file that nobody uses."""
        ...

    @property
    def used(self) -> str:
        """Path of the one that the guest uses."""
        ...


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing, alone on a node.

    :ivar title: what it is, as in the table
    :ivar make: makes it
    :ivar fate: what happens
    :ivar reason: of the veto, if it is one
    :ivar to_do: what to do, where no veto says that
    :ivar said: words that are said of it, where there is no veto
    """

    title: str
    make: Callable[[Place], object]
    fate: Fate = Fate.GOES
    reason: vetoing.Reason | None = None
    to_do: str = 'Nothing.'
    said: str | None = None

    @property
    def remedy(self) -> str:
        """Say what to do."""
        way_out = '' if self.reason is None else vetoing.way_out(self.reason)
        if not way_out:
            return self.to_do
        return f'{way_out[0].upper()}{way_out[1:]}.'


GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
_ANOTHER = '55555555-eeee-4eee-8eee-000000000005'

_DAMAGED = b'QFI\xfb\0\0\0\3\0\0\0\0\0\0'
_WILD = b'QFI\xfb\0\0\0\3\0\0\0\0\7\0\0\0\0\0\0\x14' + bytes(4096)


def _write(path: str, data: bytes = b'x' * 8192) -> str:
    with open(path, 'wb') as file:
        file.write(data)
    return path


def _directory(path: str) -> str:
    os.makedirs(path, exist_ok=True)
    return path


def _roots_file(*parts: str) -> Callable[[Place], object]:
    return lambda node: node.root(_write(node.at(*parts)))


def _roots_directory(*parts: str) -> Callable[[Place], object]:
    return lambda node: node.root(_directory(node.at(*parts)))


def _file(data: bytes, *parts: str) -> Callable[[Place], object]:
    return lambda node: _write(node.at(*parts), data)


def _link(target: str, *parts: str) -> Callable[[Place], object]:
    return lambda node: os.symlink(target, node.at(*parts))


def _socket_and_fifo(node: Place) -> None:
    os.mkfifo(node.at(GUEST, 'fifo'))
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(node.at(GUEST, 'socket'))


def _raw(node: Place) -> None:
    disk = _write(node.at(GUEST, 'disk.local'), _DAMAGED)
    said = json.dumps({disk: 'raw'}).encode()
    _write(node.at(GUEST, 'disk.info'), said)


def _moved(node: Place) -> None:
    os.rename(node.at(GUEST), node.elsewhere(GUEST))
    os.symlink(node.elsewhere(GUEST), node.at(GUEST))


def _odd_names(node: Place) -> None:
    for name in ('a' * 255, 'caf\udcff', 'x\n\x1b[31m'):
        _write(node.at(GUEST, name))


def _sibling(node: Place) -> None:
    name = os.path.basename(node.free)
    theirs = _write(node.at('_base_192.0.2.7', name))
    node.disk_over(node.at(_ANOTHER, 'disk'), theirs)


def _layer_outside(node: Place) -> None:
    node.disk_over(node.elsewhere('layer'), node.free)
    node.disk_over(node.at(_ANOTHER, 'disk'), node.elsewhere('layer'))


def _no_base(node: Place) -> None:
    os.unlink(node.used)


def _no_guest(node: Place) -> None:
    os.rename(node.at(GUEST), node.elsewhere(GUEST))
    _directory(node.at(_ANOTHER))
    _write(node.at(_ANOTHER, 'disk'))


def _own(name: str, mode: int) -> Callable[[Place], object]:
    return lambda node: node.root(
        _directory(node.at('_base', *name.split('/'))), mode
    )


CASES = (
    Case('Nothing odd', lambda _node: None),
    # Links.
    Case(
        'A link to nothing in a guest\'s directory',
        _link('/mnt/gone/disk', GUEST, 'disk.data'),
        Fate.SOME, Reason.MISSING_DISK,
    ),
    Case(
        'A link to nothing elsewhere below ``instances_path``',
        _link('/mnt/gone/disk', 'disk.data'),
        Fate.ALL, Reason.MISSING_DISK,
    ),
    Case(
        'An editor\'s lock, ``.#notes``, which is a link to nothing',
        _link('root@host.1234:1', '.#notes'),
    ),
    Case(
        'A link to a file elsewhere',
        lambda node: os.symlink(
            _write(node.elsewhere('file')), node.at('notes')
        ),
    ),
    Case('A guest\'s directory that is a link to another disk', _moved),
    Case(
        'A link in a guest\'s directory to a directory elsewhere',
        lambda node: os.symlink(
            _directory(node.elsewhere('other')), node.at(GUEST, 'backup')
        ),
        Fate.ALL, Reason.OUT_OF_SIGHT,
    ),
    Case(
        'A link to a directory above ``instances_path``',
        _link('/', 'root'),
        Fate.ALL, Reason.OUT_OF_SIGHT,
    ),
    Case('A link to a directory within', _link('..', GUEST, 'up')),
    Case('A link to itself', _link('loop', GUEST, 'loop')),
    # What only root may read.
    Case(
        'A disk of a guest that only root may read, as of LXC',
        _roots_file(GUEST, 'disk.raw'),
        Fate.SOME, Reason.UNREADABLE,
    ),
    Case(
        'Notes, or a core dump, of root\'s in a guest\'s directory',
        _roots_file(GUEST, 'core.4711'),
        Fate.SOME, Reason.UNREADABLE,
    ),
    Case(
        'A directory of root\'s in a guest\'s directory',
        _roots_directory(GUEST, 'private'),
        Fate.SOME, Reason.UNREADABLE,
    ),
    Case(
        'A core dump, or a swap file of the host, of root\'s elsewhere',
        _roots_file('core.1234'),
        Fate.ALL, Reason.UNREADABLE,
    ),
    Case(
        'A directory of root\'s elsewhere, such as ``backup``',
        _roots_directory('backup'),
        Fate.ALL, Reason.UNREADABLE,
    ),
    Case(
        'Logs of a guest that only root may read',
        _roots_file(GUEST, 'console.log'),
    ),
    Case(
        'The state of a vTPM, ``swtpm``',
        _roots_directory(GUEST, 'swtpm'),
    ),
    Case(
        'A base file that only root may read',
        lambda node: node.root(node.used),
        said='cannot be read',
        to_do='Make it readable, so that it can be verified.',
    ),
    # What file systems and tools have.
    Case(
        '``lost+found`` of a file system at ``instances_path``',
        _roots_directory('lost+found'),
    ),
    Case(
        '``lost+found`` of root\'s further down',
        _roots_directory(GUEST, 'lost+found'),
    ),
    Case(
        '``.snapshots`` of snapper, ``.snapshot`` of a filer, ``.zfs``',
        _roots_directory('.snapshots'),
    ),
    Case(
        'Disks of guests that were, in ``.snapshot``',
        lambda node: node.disk_over(
            node.at('.snapshot', 'hourly.0', 'gone', 'disk'), node.free
        ),
    ),
    Case(
        '``.glusterfs`` of a brick',
        _roots_directory('.glusterfs'),
    ),
    Case(
        '``.Trash-0`` of a file manager',
        _roots_directory('.Trash-0'),
    ),
    Case(
        '``aquota.user`` and ``aquota.group``',
        _roots_file('aquota.user'),
    ),
    # Damage, and what looks like it.
    Case(
        'A qcow2 that was cut short, as by a copy to a full disk',
        _file(_DAMAGED, GUEST, 'disk.bak'),
        Fate.SOME, Reason.DAMAGED,
    ),
    Case(
        'A qcow2 whose backing file is named past the header',
        _file(_WILD, GUEST, 'disk.bak'),
        Fate.SOME, Reason.DAMAGED,
    ),
    Case(
        'A damaged qcow2 of a guest that nobody knows',
        _file(_DAMAGED, _ANOTHER, 'disk'),
        Fate.ALL, Reason.DAMAGED,
    ),
    Case(
        'A raw disk that begins like a qcow2, with ``disk.info`` beside it',
        _raw,
    ),
    Case(
        'The first bytes of a disk that is being made',
        _file(b'QFI', GUEST, 'disk.bak'),
    ),
    Case('A named pipe, or a socket', _socket_and_fifo),
    Case('Names that are long, or no text', _odd_names),
    # Who needs what.
    Case(
        'A copy of a guest\'s disk that somebody has made',
        lambda node: node.disk_over(node.at('x', 'disk.backup'), node.free),
        Fate.NEEDED,
        to_do='Delete it when it is needed no more.',
    ),
    Case(
        '``.nfs000000000001`` of a disk that was deleted and is open',
        lambda node: node.disk_over(
            node.at(GUEST, '.nfs000000000001'), node.free
        ),
        Fate.NEEDED,
    ),
    Case(
        'A disk over a layer that is not below ``instances_path``',
        _layer_outside,
        Fate.ALL, Reason.OUT_OF_SIGHT,
    ),
    Case(
        'A disk over the base file of another host\'s cache, such as '
        '``_base_192.0.2.7``',
        _sibling,
        said='disks that use _base_192.0.2.7, the cache of another host: 1',
    ),
    Case(
        'A disk whose base file is in neither cache nor trash',
        _no_base,
        said='is missing, and these guests need it',
        to_do='Restore it, or have Nova fetch it: start a guest of the image '
        'on this host. See `When a file is corrupt`_.',
    ),
    Case(
        'A guest of this host without a directory',
        _no_guest,
        Fate.SOME, Reason.MISSING_DISK,
    ),
    # What is ours, or Nova's.
    Case(
        'The pins cannot be listed',
        _own('.imagecache/pins', 0),
        Fate.ALL, Reason.RECORD,
        said='give it back to the owner of instances_path',
        to_do='Give them back to the owner of ``instances_path``.',
    ),
    Case(
        'The state of the manager cannot be read',
        lambda node: node.root(
            _write(node.at('_base', '.imagecache', 'state'))
        ),
        Fate.ALL, Reason.RECORD,
        said='give it back to the owner of instances_path',
        to_do='Give it back to the owner of ``instances_path``.',
    ),
    Case(
        '``_base/.imagecache`` that belongs to root',
        _own('.imagecache', 0o755),
        Fate.ALL,
        said='cannot be written to: Permission denied; give it back to',
        to_do='Give it back to the owner of ``instances_path``.',
    ),
    Case(
        'The directory of locks belongs to root',
        lambda node: node.root(_directory(node.at('locks')), 0o755),
        Fate.ALL,
        said='Permission denied',
        to_do='Give it back to the owner of ``instances_path``.',
    ),
)  # fmt: skip


def _cell(text: str, lead: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text, 79, initial_indent=f'   {lead} - ', subsequent_indent='       ',
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def table() -> str:
    """Write the table of what is met, what happens and what to do."""
    lines = [
        '.. list-table::',
        '   :header-rows: 1',
        '   :widths: 34 26 40',
        '',
    ]
    rows = [('What is met', 'What happens', 'What to do')]
    rows += [(each.title, str(each.fate), each.remedy) for each in CASES]
    for first, *others in rows:
        lines += _cell(first, '*')
        for text in others:
            lines += _cell(text, ' ')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    print(table(), end='')
