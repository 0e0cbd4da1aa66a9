# SPDX-License-Identifier: Apache-2.0

"""What a reference to a backing file means to QEMU, by pure functions.

After ``bdrv_open_inherit``, ``bdrv_fill_options`` and ``bdrv_find_protocol``
in block.c of QEMU, and the ``*_parse_filename`` of its protocols (decision
0073). References come from headers that guests may write: nothing here opens
what they name.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import re
from typing import NamedTuple

from nova_imagecache import names
from nova_imagecache.witnesses import qemu_options

# path_has_protocol() in block.c.
_PROTOCOL = re.compile(r'([^:/]*):(.*)', re.DOTALL)
_URL = re.compile(r'//(?P<host>[^/?#]*)(?P<path>[^?#]*)', re.DOTALL)
_PERCENT = re.compile(rb'%([0-9A-Fa-f]{2})')
_BACKSLASH = re.compile(r'\\(.)', re.DOTALL)
_EXPORT_NAME = ':exportname='

# Whatever a base file may be called.
_WORD = re.compile(r'[0-9A-Za-z_.-]+')

# Protocols and drivers of files and devices of this host.
_LOCAL = frozenset({'file', 'host_cdrom', 'host_device'})

# Files that are others in another process; QEMU gives the second of these a
# meaning of its own (qemu_open_internal() in util/osdep.c).
_OF_A_PROCESS = ('/dev/fd/', '/dev/fdset/', '/dev/std', '/proc/')

# Protocols that are named by URL, and by no option but 'url'.
_URL_DRIVERS = frozenset({'ftp', 'ftps', 'http', 'https', 'tftp'})

# Drivers of what is elsewhere, with the options that name it there.
_REMOTE_OPTIONS = {
    'gluster': ('volume', 'path'),
    'iscsi': ('target',),
    'iser': ('target',),
    'nbd': ('export',),
    'nfs': ('path',),
    'rbd': ('pool', 'namespace', 'image'),
    'sheepdog': ('vdi',),
    'ssh': ('path',),
    'vxhs': ('vdisk-id',),
} | dict.fromkeys(_URL_DRIVERS, ())

# Options by which older releases named it instead, as in a file name.
_REMOTE_NAMES = ('url', 'uri', 'filename')

# Drivers of a whole disk at 'path', all of io_uring or virtio-blk-*.
_PATH_DRIVERS = frozenset(
    {
        'io_uring', 'nvme-io_uring', 'virtio-blk-vfio-pci',
        'virtio-blk-vhost-user', 'virtio-blk-vhost-vdpa',
    }
)  # fmt: skip

# Drivers that open other nodes: formats and filters.
_FORMATS = frozenset(
    {
        'blkdebug', 'blklogwrites', 'blkreplay', 'blkverify', 'bochs',
        'cloop', 'compress', 'copy-before-write', 'copy-on-read', 'dmg',
        'luks', 'parallels', 'preallocate', 'qcow', 'qcow2', 'qed', 'quorum',
        'raw', 'replication', 'snapshot-access', 'throttle', 'vdi', 'vhdx',
        'vmdk', 'vpc',
    }
)  # fmt: skip

# Options of theirs that are nodes, or lists of nodes; and that are neither,
# though they have options of their own.
_CHILDREN = frozenset(
    {
        'backing', 'data-file', 'file', 'header', 'image', 'log', 'raw',
        'target', 'test',
    }
)  # fmt: skip
_CHILD_LISTS = frozenset({'children', 'extents'})
_SETTINGS = frozenset(
    {
        'bitmap', 'cache', 'encrypt', 'inject-error', 'overlap-check',
        'set-state',
    }
)  # fmt: skip

# Options that are file names, unlike 'filename', which is a path.
_FILE_NAMES = ('x-image', 'x-raw')


class Target(NamedTuple):
    """One file that a reference leads to.

    :ivar path: decoded. Of a local file absolute or relative to the directory
        of the disk that has the reference; of a remote one whatever names it
        there: the path of a URL without query and fragment, the export of an
        NBD server, ``pool/image`` of RBD ...
    :ivar local: whether QEMU opens it as a file of this host
    """

    path: str
    local: bool


class Reference(NamedTuple):
    """What a reference may mean.

    There is a target, or it is unknown why there is none, or both.

    :ivar targets: all files that it leads to
    :ivar names: last components that it may have in any reading, and rather
        too many, for finding users
    :ivar unknown: why it, or a part of it, cannot be made out: a clause for a
        sentence, such as "it is of a protocol that is not known (foo)"
    """

    targets: tuple[Target, ...]
    names: frozenset[str]
    unknown: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Unknown:
    """Why something cannot be made out."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class _FileName:
    """What QEMU takes apart, inside another reference."""

    text: str


_Found = Target | _Unknown | _FileName | qemu_options.Options


def _quote(text: str) -> str:
    """Make text of a guest's fit for a sentence."""
    return names.printable(text[:100])


def _percent_decoded(text: str) -> str:
    data = _PERCENT.sub(
        lambda match: bytes.fromhex(match[1].decode()),
        text.encode('utf-8', 'surrogateescape'),
    )
    return data.partition(b'\0')[0].decode('utf-8', 'surrogateescape')


def _local(path: str) -> Iterator[_Found]:
    """Find what QEMU opens by its path, wherever QEMU runs."""
    if not path:
        yield _Unknown('a name in it is empty')
    elif path.startswith(_OF_A_PROCESS):
        yield _Unknown(f'it is open in some process only ({_quote(path)})')
    else:
        yield Target(path, True)
        if not path.startswith('/'):
            yield _Unknown(
                'it is relative to the directory in which QEMU runs '
                f'({_quote(path)})'
            )


def _url(protocol: str, rest: str) -> Iterator[_Found]:
    """Find the path of a URL, or the host if that is all there is."""
    match = _URL.match(rest)
    host, path = (match['host'], match['path']) if match else ('', rest)
    path = _percent_decoded(path)
    if protocol.startswith('nbd'):
        path = path.lstrip('/')
    yield from _remote(path.strip('/') and path, host, rest)


def _remote(*paths: str) -> Iterator[_Found]:
    """Take the first way to name it that says anything."""
    for path in paths:
        if path:
            yield Target(path, False)
            return
    yield _Unknown('it does not say which file')


def _nbd(rest: str) -> Iterator[_Found]:
    """Find the export of the older form: nbd:host:port:exportname=name."""
    server, _separator, export = rest.partition(_EXPORT_NAME)
    yield from _remote(export, server.removeprefix('unix:'))


def _rbd(rest: str) -> Iterator[_Found]:
    """Find the image in rbd:pool/namespace/image@snapshot:key=value."""
    image = re.match(r'(?:[^\\@:]|\\.)*', rest, re.DOTALL)
    yield from _remote(_BACKSLASH.sub(r'\1', image[0] if image else ''))


def _fat(rest: str) -> Iterator[_Found]:
    """Find the directory behind options, as in fat:floppy:rw:directory."""
    # One letter is taken for a drive, also here (block/vvfat.c).
    drive = re.search(r'(?:\A|:)([A-Za-z]:[^:]*)\Z', rest)
    yield from _directory(drive[1] if drive else rest.rpartition(':')[2])


def _directory(path: str) -> Iterator[_Found]:
    yield from _local(path)
    yield _Unknown(f'it is a whole directory ({_quote(path)})')


def _blkdebug(rest: str) -> Iterator[_Found]:
    """Find the image behind a configuration, which may be missing."""
    yield _FileName(rest.partition(':')[2])


def _blkverify(rest: str) -> Iterator[_Found]:
    """Find both images; the name of the first one has no colon in it."""
    raw, _separator, image = rest.partition(':')
    yield from (_FileName(raw), _FileName(image))


def _json(text: str) -> Iterator[_Found]:
    try:
        yield qemu_options.read(text)
    except qemu_options.MalformedOptions as error:
        yield _Unknown(str(error))


def _nothing(_rest: str) -> Iterator[_Found]:
    yield _Unknown('it has no file')


_PROTOCOLS: dict[str, Callable[[str], Iterator[_Found]]] = {
    'blkdebug': _blkdebug,
    'blkverify': _blkverify,
    'fat': _fat,
    'json': _json,
    'null-aio': _nothing,
    'null-co': _nothing,
    'rbd': _rbd,
} | dict.fromkeys(_LOCAL, _local)


def _file_name(text: str) -> Iterator[_Found]:
    """Find what is meant by a file name, which may have a protocol."""
    match = _PROTOCOL.match(text)
    if match is None:
        return _local(text)
    protocol, rest = match.groups()
    if protocol in _PROTOCOLS:
        return _PROTOCOLS[protocol](rest)
    if protocol == 'nbd' and not rest.startswith('//'):
        return _nbd(rest)
    if protocol.partition('+')[0] in _REMOTE_OPTIONS:
        return _url(protocol, rest)
    return iter(
        [
            _Unknown(
                f'it is of a protocol that is not known ({_quote(protocol)})'
            )
        ]
    )


def _node(options: qemu_options.Options) -> Iterator[_Found]:
    """Find what the options of a node lead to."""
    for name in options.said_twice():
        yield _Unknown(f'it says {_quote(name)} in two ways')
    driver = options.text('driver')
    if not options.is_text('driver'):
        yield from _format_node(options)
    elif driver in _LOCAL:
        yield from _local(options.text('filename'))
    elif driver in _PATH_DRIVERS:
        yield from _local(options.text('path'))
    elif driver in _REMOTE_OPTIONS:
        yield from _remote_node(driver, options)
    elif driver == 'vvfat':
        yield from _directory(options.text('dir'))
    elif driver in ('null-aio', 'null-co'):
        yield from _nothing(driver)
    elif driver in _FORMATS:
        yield from _format_node(options)
    else:
        yield _Unknown(
            f'it is of a driver that is not known ({_quote(driver)})'
        )
        yield from _children(options)


def _remote_node(
    driver: str, options: qemu_options.Options
) -> Iterator[_Found]:
    parts = [options.text(name) for name in _REMOTE_OPTIONS[driver]]
    path = '/'.join(part for part in parts if part)
    if path:
        yield Target(path, False)
        return
    for name in _REMOTE_NAMES:
        if options.text(name):
            match = _PROTOCOL.match(options.text(name))
            yield from _url(driver, match[2] if match else options.text(name))
            return
    yield from _remote(
        options.text('path'),
        options.child('server').text('path'),
        options.child('server').text('host'),
        options.text('host'),
    )


def _format_node(options: qemu_options.Options) -> Iterator[_Found]:
    found = [*_children(options)]
    # Without a driver it is the name of a file, not to be taken apart.
    if not options.is_text('driver') and options.text('filename'):
        found += _local(options.text('filename'))
    yield from found
    if not found:
        yield _Unknown('it does not say which file')


def _children(options: qemu_options.Options) -> Iterator[_Found]:
    for name in _FILE_NAMES:
        if options.text(name):
            yield _FileName(options.text(name))
    for name, child in options.children.items():
        if name in _CHILD_LISTS:
            yield from child.children.values()
            yield from _node_names(child.values)
        elif name in _CHILDREN:
            yield child
        elif name not in _SETTINGS:
            yield _Unknown(f'an option of it is not known ({_quote(name)})')
    yield from _node_names(
        {
            name: values
            for name, values in options.values.items()
            if name in _CHILDREN
        }
    )


def _node_names(values: dict[str, list[str | None]]) -> Iterator[_Found]:
    for texts in values.values():
        # Null, or nothing, is no backing file.
        for text in filter(None, texts):
            yield _Unknown(f'it names a node of QEMU ({_quote(text)})')


def _look(item: _FileName | qemu_options.Options) -> Iterator[_Found]:
    if isinstance(item, _FileName):
        return _file_name(item.text)
    return _node(item)


def _resolve(reference: str) -> tuple[list[Target], str | None]:
    """Find all files that a reference leads to, and why there may be more."""
    text = reference.partition('\0')[0]
    try:
        text.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError:
        return [], 'it is no text'
    # A plain path, as nearly all are. If it is not absolute, only this is
    # relative to the disk (bdrv_make_absolute_filename()).
    if text and not _PROTOCOL.match(text):
        if not text.startswith(_OF_A_PROCESS):
            return [Target(text, True)], None
    targets: dict[Target, None] = {}
    reasons = []
    # No recursion: a guest says how deep it goes.
    pending: list[_FileName | qemu_options.Options] = [_FileName(text)]
    while pending:
        for found in _look(pending.pop()):
            if isinstance(found, Target):
                targets[found] = None
            elif isinstance(found, _Unknown):
                reasons.append(found.reason)
            else:
                pending.append(found)
    return [*targets], reasons[0] if reasons else None


def _last_components(texts: set[str]) -> frozenset[str]:
    components = set()
    for text in texts:
        component = text.rstrip('/').rpartition('/')[2]
        components.add(component)
        components.add(component.rpartition(':')[2])
    components.discard('')
    return frozenset(components)


def _names(reference: str, targets: list[Target]) -> frozenset[str]:
    texts = {target.path for target in targets}
    is_json = reference.startswith('json:')
    if is_json:
        texts.update(qemu_options.strings(reference.removeprefix('json:')))
    else:
        texts.add(reference)
    # Decision 0053.
    if is_json or not targets:
        decoded = qemu_options.unescaped(reference)
        for text in (reference, decoded, _percents(reference, decoded)):
            texts.update(_WORD.findall(text))
    return _last_components(texts)


def _percents(*texts: str) -> str:
    """Decode the percents in texts of any kind, which are for words only."""
    return ' '.join(
        _PERCENT.sub(
            lambda match: bytes.fromhex(match[1].decode()),
            text.encode('utf-8', 'replace'),
        ).decode('utf-8', 'replace')
        for text in texts
    )


# Asked more than once of each disk, and tens of disks have the same.
@functools.lru_cache(maxsize=1024)
def read(reference: str) -> Reference:
    """Say what a reference to a backing file or a data file means to QEMU.

    Never raises. A reference without a protocol that is not absolute is
    relative to the disk; any other one that is not is relative to wherever
    QEMU runs, which is a target and unknown.
    """
    targets, unknown = _resolve(reference)
    return Reference(tuple(targets), _names(reference, targets), unknown)
