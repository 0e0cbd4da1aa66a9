# SPDX-License-Identifier: Apache-2.0

"""The witness that asks libvirt for the domains of this host."""

from collections.abc import Collection
from collections.abc import Iterable
import dataclasses

from nova_imagecache import names
from nova_imagecache.witnesses import domain_xml
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import testimonies


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split())
    return names.printable(text or repr(error))


class _Index:
    """Who needs which file, and which image, of all domains."""

    def __init__(self, domains: Iterable[domain_xml.Domain]) -> None:
        self._by_file: dict[str, set[str]] = {}
        self._by_image: dict[str, set[str]] = {}
        self._images: dict[str, str] = {}
        for domain in domains:
            guest = domain.uuid or domain.name or 'a domain without a name'
            for file in domain.files:
                self._by_file.setdefault(file, set()).add(guest)
            for image in domain.images:
                fingerprint = names.get_cache_fname(image)
                self._by_image.setdefault(fingerprint, set()).add(guest)
                self._images[fingerprint] = image

    def users(self, base_file: str) -> testimonies.Guests:
        """Give those whose disks lead here, or that were made from it."""
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
    chain.

    :ivar uri: of the libvirt of this host
    :ivar host: name of this host, as in its options
    :ivar connection: the host's own; without one, a process opens the URI
    """

    uri: str
    host: str
    connection: libvirt_connection.HostConnection | None = None

    def look(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Ask libvirt who needs these files."""
        # A broad net, as the connection and what it raises are the host's.
        try:
            answer = self._ask()
            libvirt_connection.check_host(answer, self.host)
        except Exception as error:
            failure = f'libvirt at {self.uri}: {_one_line(error)}'
            return testimonies.Testimony(failures=(failure,))
        index = _Index(answer.domains)
        users = {name: index.users(name) for name in base_files}
        images = {name: index.image(name) for name in base_files}
        return testimonies.Testimony(
            users={name: guests for name, guests in users.items() if guests},
            images={name: image for name, image in images.items() if image},
            aliases={
                domain.name: domain.uuid
                for domain in answer.domains
                if domain.name and domain.uuid
            },
        )

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Add nothing: a guest that starts shows in the image locks."""
        return testimonies.Testimony()

    def _ask(self) -> libvirt_connection.Answer:
        if self.connection is None:
            return libvirt_connection.ask(self.uri)
        return self.connection.ask()
