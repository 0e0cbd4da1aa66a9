# SPDX-License-Identifier: Apache-2.0

"""The witness that asks libvirt for the domains of this host."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses

from nova_imagecache import names
from nova_imagecache.witnesses import domain_xml
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import needs
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split())
    return names.printable(text or repr(error))


def _guest(domain: domain_xml.Domain) -> str:
    return domain.uuid or domain.name or 'a domain without a name'


def _may_need(domain: domain_xml.Domain) -> needs.Needs:
    """Say what a domain may need of which Nova has noted the image."""
    images = map(names.get_cache_fname, domain.images)
    return frozenset({*images, *domain.files}) | needs.ANY_DEVICE


def _is_rescued(domain: domain_xml.Domain) -> bool:
    """Whether it may stand on another image than Nova has noted."""
    return any(disk.source.endswith('.rescue') for disk in domain.disks)


def _named(domain: domain_xml.Domain) -> Iterator[testimonies.NamedDisk]:
    """Give the disks that a header has to be read of: a raw one has none."""
    for disk in domain.disks:
        if disk.format != 'raw' and not disk.removable:
            yield testimonies.NamedDisk(
                _guest(domain), disk.source, disk.path, disk.layers
            )


class _Index:
    """Who needs which file, and which image, of all domains."""

    def __init__(self, domains: Iterable[domain_xml.Domain]) -> None:
        self._by_file: dict[str, set[str]] = {}
        self._by_image: dict[str, set[str]] = {}
        self._images: dict[str, str] = {}
        for domain in domains:
            guest = _guest(domain)
            for file in domain.files:
                self._by_file.setdefault(file, set()).add(guest)
            for image in domain.images:
                fingerprint = names.get_cache_fname(image)
                self._by_image.setdefault(fingerprint, set()).add(guest)
                self._images[fingerprint] = image

    def readers(self, base_file: str) -> testimonies.Guests:
        """Give those whose disks lead here."""
        return frozenset(self._by_file.get(base_file, ()))

    def users(self, base_file: str) -> testimonies.Guests:
        """Give those, and the ones that were made from it."""
        guests = self._by_file.get(base_file, set())
        if names.kind_of(base_file).is_image:
            fingerprint = names.fingerprint(base_file)
            guests = guests | self._by_image.get(fingerprint, set())
        return frozenset(guests)

    def image(self, base_file: str) -> str | None:
        """Give the image that a base file was made from, if it is known."""
        if not names.kind_of(base_file).is_image:
            return None
        return self._images.get(names.fingerprint(base_file))


@dataclasses.dataclass(frozen=True)
class DomainWitness:
    """Who uses what, according to libvirt.

    It sees the disks of guests wherever they are, and those of guests that
    are defined and not running. Of these it knows the image, but not the
    chain: it names the disks for the overlays to look at.

    :ivar uri: of the libvirt of this host
    :ivar host: name of this host, as in its options
    :ivar connection: the host's own; without one, a process opens the URI
    """

    uri: str
    host: str
    connection: libvirt_connection.Connection | None = None

    def look(
        self,
        base_files: Collection[str],
        others: testimonies.Testimony | None = None,
    ) -> testimonies.Testimony:
        """Ask libvirt who needs these files."""
        # A broad net, as the connection and what it raises are the host's.
        try:
            answer = self._ask()
            libvirt_connection.check_host(answer, self.host)
        except Exception as error:
            failure = vetoing.Veto(
                vetoing.Reason.UNANSWERED,
                f'libvirt at {self.uri}',
                _one_line(error),
            )
            return testimonies.Testimony(vetoes=(failure,))
        index = _Index(answer.domains)
        users = {
            name: guests
            for name in base_files
            if (guests := index.users(name))
        }
        readers = {name: index.readers(name) for name in base_files}
        images = {name: index.image(name) for name in base_files}
        return testimonies.Testimony(
            users=users,
            readers={name: found for name, found in readers.items() if found},
            images={name: image for name, image in images.items() if image},
            aliases={
                domain.name: domain.uuid
                for domain in answer.domains
                if domain.name and domain.uuid
            },
            titles={
                _guest(domain): title
                for domain in answer.domains
                if (title := domain.title or domain.name)
            },
            said=users,
            known={
                _guest(domain): _may_need(domain)
                for domain in answer.domains
                if domain.images and not _is_rescued(domain)
            },
            # Their disks are named, wherever their directories are.
            expected={
                _guest(domain): frozenset() for domain in answer.domains
            },
            disks=tuple(
                disk for domain in answer.domains for disk in _named(domain)
            ),
        )

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Add nothing: a guest that starts shows in the image locks."""
        return testimonies.Testimony()

    def _ask(self) -> libvirt_connection.Answer:
        if self.connection is None:
            return libvirt_connection.ask(self.uri)
        return self.connection.ask()
