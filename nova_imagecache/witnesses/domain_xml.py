# SPDX-License-Identifier: Apache-2.0

"""What the XML of a libvirt domain says of the files that it needs.

See https://libvirt.org/formatdomain.html. Running domains show their whole
backing chains, defined ones only what is on top, and Nova's note of the image.
"""

import dataclasses
import re
from xml.etree import ElementTree

from nova_imagecache.witnesses import disk_header

# What has storage behind it; a file system may be an image in a file.
_DEVICES = frozenset({'disk', 'filesystem'})

# Names are in the attributes of these: file, dev, dir, name, volume. Older
# libvirts have them on <mirror> itself.
_WITH_NAMES = frozenset({'source', 'mirror'})

_BOOT_FILES = frozenset({'kernel', 'initrd'})

# LibvirtConfigGuestMetaNovaInstance in nova/virt/libvirt/config.py; the
# version at the end of the namespace has moved before.
_NOVA_ROOT = re.compile(
    r'\{http://openstack\.org/xmlns/libvirt/nova/[^}]*\}root'
)


class MalformedDomain(ValueError):
    """This is no XML of a domain."""


@dataclasses.dataclass(frozen=True)
class Domain:
    """What is needed of a domain.

    :ivar files: names of the files that its disks need, without any path
    :ivar images: IDs of the images that Nova made it from, and whose base
        files it may read
    """

    uuid: str | None
    name: str | None
    files: frozenset[str]
    images: frozenset[str]


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


def _text(domain: ElementTree.Element, tag: str) -> str | None:
    return (domain.findtext(tag) or '').strip() or None


def read_domain(xml: str) -> Domain:
    """Read what is needed of a domain.

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
        images=_images(domain),
    )
