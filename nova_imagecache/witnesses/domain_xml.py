# SPDX-License-Identifier: Apache-2.0

"""What the XML of a libvirt domain says of the files that it needs.

See https://libvirt.org/formatdomain.html. Running domains show their whole
backing chains, defined ones only what is on top, and Nova's note of the image.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import os
import re
from xml.etree import ElementTree

from nova_imagecache.witnesses import disk_header

# What has storage behind it; a file system may be an image in a file.
_DEVICES = frozenset({'disk', 'filesystem'})

# Names are in the attributes of these: file, dev, dir, name, volume. Older
# libvirts have them on <mirror> itself.
_WITH_NAMES = frozenset({'source', 'mirror'})

_BOOT_FILES = frozenset({'kernel', 'initrd'})

# The types of disks and file systems that are a file or a block device of
# this host, and the attribute of <source> that has its path.
_LOCAL = {'file': 'file', 'block': 'dev'}

_REMOVABLE = frozenset({'cdrom', 'floppy'})

# What a disk is when nothing is said: libvirt does not look into it.
_RAW = 'raw'

#: Gives the path of a volume of a pool, where it is known.
VolumePath = Callable[[str, str], str | None]

# LibvirtConfigGuestMetaNovaInstance in nova/virt/libvirt/config.py; the
# version at the end of the namespace has moved before.
_NOVA_ROOT = re.compile(
    r'\{http://openstack\.org/xmlns/libvirt/nova/[^}]*\}root'
)
_NOVA_NAME = re.compile(_NOVA_ROOT.pattern.replace('root', 'name'))


class MalformedDomain(ValueError):
    """This is no XML of a domain."""


@dataclasses.dataclass(frozen=True)
class DomainDisk:
    """One disk of a domain.

    :ivar source: how to name it to people: its path, or protocol and name
        ('rbd:pool/image'), or pool/volume
    :ivar path: of the file or block device of this host that it is; None if
        it is none, or that is not known
    :ivar format: as libvirt calls it, qcow2 for one; raw where libvirt says
        nothing, as it does not probe either
    :ivar layers: paths of all that is below it, top first, where libvirt
        shows the whole chain, as of a running domain; None where it does
        not, or where anything of it is not on this host. Data files of qcow2
        are among them since libvirt 10.10, and shown nowhere before
    :ivar removable: whether it is a CD-ROM or a floppy
    """

    source: str
    path: str | None
    format: str
    layers: tuple[str, ...] | None = None
    removable: bool = False


@dataclasses.dataclass(frozen=True)
class Domain:
    """What is needed of a domain.

    :ivar files: names of the files that its disks need, without any path
    :ivar images: IDs of the images that Nova made it from, and whose base
        files it may read
    :ivar disks: all that have anything in them, and what they are just being
        copied to
    :ivar title: what its owner calls it, where Nova has noted that
    """

    uuid: str | None
    name: str | None
    files: frozenset[str]
    images: frozenset[str]
    disks: tuple[DomainDisk, ...]
    title: str | None = None


def _parse(xml: str) -> ElementTree.Element:
    # Entities are declared nowhere else, and a few of them can become very
    # large. In a text, libvirt writes &lt; for the first character.
    if '<!DOCTYPE' in xml:
        raise MalformedDomain('it has a document type')
    try:
        return ElementTree.fromstring(xml)  # noqa: S314 see above
    except (ElementTree.ParseError, ValueError) as error:
        raise MalformedDomain(f'it is no XML: {error}') from error


def _references(domain: ElementTree.Element) -> list[str]:
    references: list[str] = []
    for device in domain.iterfind('devices/*'):
        if device.tag in _DEVICES:
            for element in device.iter():
                if element.tag in _WITH_NAMES:
                    references += element.attrib.values()
    for element in domain.iterfind('os/*'):
        if element.tag in _BOOT_FILES and element.text:
            references.append(element.text.strip())
    return references


def _is_copied(domain: ElementTree.Element) -> bool:
    """Whether all disks are raw, and so copies: none reads a base file.

    The root of a container is a file system, and may be anything; a share
    that the host passes on (virtiofs) is no disk.
    """

    def types(device: str) -> list[str | None]:
        drivers = (each.find('driver') for each in domain.iterfind(device))
        return [
            None if driver is None else driver.get('type')
            for driver in drivers
        ]

    return set(types('devices/disk')) == {'raw'} and set(
        types('devices/filesystem')
    ) <= {'virtiofs'}


def _images(domain: ElementTree.Element) -> frozenset[str]:
    # Decision 0040.
    if _is_copied(domain):
        return frozenset()
    return frozenset(
        root.get('uuid', '')
        for root in domain.iterfind('metadata//*')
        if _NOVA_ROOT.fullmatch(root.tag) and root.get('type') == 'image'
    ) - {''}


def _absolute(path: str | None) -> str | None:
    """Give a path of this host; volumes of some pools have other names."""
    return path if path and os.path.isabs(path) else None


def _network_name(source: ElementTree.Element) -> str:
    names = [source.get('name')]
    for host in source.iterfind('host'):
        names += [host.get('name'), host.get('socket')]
    name = next(filter(None, names), '')
    return f'{source.get("protocol", "network")}:{name}'


def _nvme_name(source: ElementTree.Element) -> str:
    address = source.find('address')
    if address is None:
        return 'nvme:'
    parts = [
        address.get(part, '').removeprefix('0x')
        for part in ('domain', 'bus', 'slot', 'function')
    ]
    name = '{}:{}:{}.{}'.format(*parts)
    return f'nvme:{name}/{source.get("namespace", "")}'


def _locate(
    storage: ElementTree.Element, volume_path: VolumePath
) -> tuple[str, str | None] | None:
    """Give the name of a storage, and its path if it has one on this host.

    :param storage: a disk, or what is below it
    :returns: None where there is nothing, as in an empty CD-ROM
    """
    kind = storage.get('type', 'file')
    source = storage.find('source')
    if source is None:
        # <mirror> of libvirt before 1.2.
        source = storage
    if kind in _LOCAL:
        path = source.get(_LOCAL[kind])
        return (path, _absolute(path)) if path else None
    if source is storage:
        return None
    if kind == 'volume':
        pool, volume = source.get('pool', ''), source.get('volume', '')
        return f'{pool}/{volume}', _absolute(volume_path(pool, volume))
    if kind == 'network':
        return _network_name(source), None
    if kind == 'nvme':
        return _nvme_name(source), None
    if kind == 'dir':
        return source.get('dir', ''), None
    return f'{kind}:{source.get("path") or source.get("dev", "")}', None


def _layers(
    disk: ElementTree.Element, volume_path: VolumePath
) -> tuple[str, ...] | None:
    layers: list[str] = []
    storage: ElementTree.Element | None = disk
    while storage is not None:
        below = storage.findall('source/dataStore')
        storage = storage.find('backingStore')
        # An empty one says that there is nothing more.
        ends = storage is not None and not storage.attrib and not len(storage)
        if storage is not None and not ends:
            below.append(storage)
        for each in below:
            _name, path = _locate(each, volume_path) or (None, None)
            if path is None:
                return None
            layers.append(path)
        if ends:
            return tuple(layers)
    return None


def _format(device: ElementTree.Element) -> str:
    """Give the format of a disk, a mirror or a file system, in that order."""
    for tag, attribute in (
        ('driver', 'format' if device.tag == 'filesystem' else 'type'),
        ('format', 'type'),
        ('.', 'format'),
    ):
        element = device.find(tag)
        value = None if element is None else element.get(attribute)
        if value:
            return value
    return _RAW


def _storages(
    domain: ElementTree.Element,
) -> Iterator[tuple[ElementTree.Element, bool]]:
    """Give disks, what they are copied to, and images of file systems.

    A directory that is shared with a guest is none. With each comes whether
    it is removable.
    """
    for disk in domain.iterfind('devices/disk'):
        removable = disk.get('device') in _REMOVABLE
        for storage in (disk, *disk.iterfind('mirror')):
            yield storage, removable
    for filesystem in domain.iterfind('devices/filesystem'):
        if filesystem.get('type') in _LOCAL:
            yield filesystem, False


def _disks(
    domain: ElementTree.Element, volume_path: VolumePath
) -> tuple[DomainDisk, ...]:
    # Only of one that runs: a definition may say what QEMU is to read below a
    # disk, whatever the header says, which others go by.
    runs = domain.get('id') is not None
    disks = []
    for storage, removable in _storages(domain):
        located = _locate(storage, volume_path)
        if located is not None:
            source, path = located
            disks.append(
                DomainDisk(
                    source=source,
                    path=path,
                    format=_format(storage),
                    layers=_layers(storage, volume_path) if runs else None,
                    removable=removable,
                )
            )
    return tuple(disks)


def _text(domain: ElementTree.Element, tag: str) -> str | None:
    return (domain.findtext(tag) or '').strip() or None


def _title(domain: ElementTree.Element) -> str | None:
    """Give the name that its owner has given it, as Nova notes it."""
    for element in domain.iterfind('metadata/*/*'):
        if _NOVA_NAME.fullmatch(element.tag):
            return (element.text or '').strip() or None
    return None


def _unknown(_pool: str, _volume: str) -> None:
    """Know no volume of any pool."""


def read_domain(xml: str, volume_path: VolumePath = _unknown) -> Domain:
    """Read what is needed of a domain.

    :param volume_path: raises nothing
    :raises MalformedDomain: this is no XML of a domain
    """
    domain = _parse(xml)
    if domain.tag != 'domain':
        raise MalformedDomain(f'it is no domain but {domain.tag}')
    files: set[str] = set()
    for reference in _references(domain):
        files |= disk_header.file_names(reference)
    return Domain(
        uuid=_text(domain, 'uuid'),
        name=_text(domain, 'name'),
        files=frozenset(files),
        title=_title(domain),
        images=_images(domain),
        disks=_disks(domain, volume_path),
    )


def join(running: Domain, defined: Domain) -> Domain:
    """Give what a domain needs as it runs, and when it is started anew.

    A disk that is in both counts once, with its layers where they are shown.
    """
    shown = {
        dataclasses.replace(disk, layers=None)
        for disk in running.disks
        if disk.layers is not None
    }
    others = [disk for disk in defined.disks if disk not in shown]
    return dataclasses.replace(
        running,
        files=running.files | defined.files,
        images=running.images | defined.images,
        disks=tuple(dict.fromkeys([*running.disks, *others])),
    )
