# SPDX-License-Identifier: Apache-2.0

"""The witness that knows the host's instances."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from nova_imagecache import names
from nova_imagecache.witnesses import testimonies

#: Block device mappings of each instance, by its UUID. As Nova's
#: BlockDeviceMapping, or dictionaries with the same keys.
BlockDeviceMappings = Mapping[str, Iterable[Any]]

_IMAGE_FIELDS = ('image_ref', 'kernel_id', 'ramdisk_id')

_EPHEMERAL = re.compile(r'ephemeral_(?P<gb>[0-9]+)_.*')

_REQUIRED = object()


def _field(thing: Any, name: str, default: Any = _REQUIRED) -> Any:
    """Read a field of an object or of something like a dictionary."""
    try:
        if isinstance(thing, Mapping):
            return thing[name]
        try:
            return getattr(thing, name)
        except AttributeError:
            if not hasattr(thing, '__getitem__'):
                raise
        return thing[name]
    except (AttributeError, KeyError):
        if default is _REQUIRED:
            raise
        return default


@dataclasses.dataclass(frozen=True)
class Guest:
    """What is needed of an instance.

    :ivar name: of its directory, before directories had the UUID's name
    :ivar images: of its disk, kernel and ramdisk, by their fingerprints
    :ivar swap_mb: sizes of its swap devices in MiB
    :ivar ephemeral_gb: sizes of its ephemeral devices in GiB
    """

    uuid: str
    name: str | None
    images: Mapping[str, str]
    swap_mb: frozenset[int] = frozenset()
    ephemeral_gb: frozenset[int] = frozenset()


def _local_devices(
    mappings: Iterable[Any],
) -> tuple[frozenset[int], frozenset[int]]:
    """Pick the sizes of the swap and ephemeral devices, all of them.

    As ``new_format_is_swap`` and ``new_format_is_ephemeral`` in
    nova/block_device.py.
    """
    swap: set[int] = set()
    ephemeral: set[int] = set()
    for mapping in mappings:
        if _field(mapping, 'source_type') != 'blank':
            continue
        if _field(mapping, 'destination_type') != 'local':
            continue
        is_swap = _field(mapping, 'guest_format', None) == 'swap'
        size = int(_field(mapping, 'volume_size') or 0)
        (swap if is_swap else ephemeral).add(size)
    return frozenset(swap), frozenset(ephemeral)


def read_guest(instance: Any, mappings: Iterable[Any] = ()) -> Guest:
    """Read what is needed of an instance, and no other field.

    Nova loads some fields lazily, one query for each. An empty ``image_ref``
    is that of a guest which boots from a volume.

    :raises Exception: whatever the host's object raises
    """
    images = [_field(instance, 'image_ref')]
    images += [_field(instance, name, None) for name in _IMAGE_FIELDS[1:]]
    swap, ephemeral = _local_devices(mappings)
    uuid = _field(instance, 'uuid')
    if not uuid:
        raise ValueError('it has no UUID')
    name = _field(instance, 'name', None)
    return Guest(
        uuid=str(uuid),
        name=name if isinstance(name, str) else None,
        images={
            names.get_cache_fname(str(image)): str(image)
            for image in images
            if image
        },
        swap_mb=swap,
        ephemeral_gb=ephemeral,
    )


class InstanceWitness:
    """Who uses what, according to the instances that the host hands in.

    Every instance counts, whatever its state and wherever it runs: one that
    is resized, shelved or soft-deleted may come back to its base file.
    """

    def __init__(
        self,
        instances: Iterable[Any] | None,
        mappings: BlockDeviceMappings | None = None,
    ) -> None:
        """Take the host's instances.

        :param mappings: where the host does not pass them, the overlays
            alone tell who uses swap and ephemeral base files
        """
        self._instances = instances
        self._mappings = {} if mappings is None else mappings

    def look(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Say which of these files the instances were made from."""
        guests, failures = self._guests()
        by_image: dict[str, set[str]] = {}
        by_device: dict[str, set[str]] = {}
        image_ids: dict[str, str] = {}
        for guest in guests:
            image_ids |= guest.images
            for fingerprint in guest.images:
                by_image.setdefault(fingerprint, set()).add(guest.uuid)
            for size in guest.swap_mb:
                by_device.setdefault(f'swap_{size}', set()).add(guest.uuid)
            for size in guest.ephemeral_gb:
                by_device.setdefault(f'ephemeral_{size}', set()).add(
                    guest.uuid
                )
        users = {}
        images = {}
        for name in base_files:
            if names.kind_of(name).is_image:
                fingerprint = names.fingerprint(name)
                found = by_image.get(fingerprint)
                if fingerprint in image_ids:
                    images[name] = image_ids[fingerprint]
            else:
                # The rest of an ephemeral name depends on the guest's OS.
                match = _EPHEMERAL.fullmatch(name)
                found = by_device.get(
                    f'ephemeral_{match["gb"]}' if match else name
                )
            if found:
                users[name] = frozenset(found)
        return testimonies.Testimony(
            users,
            images,
            {guest.name: guest.uuid for guest in guests if guest.name},
            by_list=True,
            failures=tuple(failures),
        )

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Add nothing: the host's list is what it was."""
        return testimonies.Testimony()

    def _guests(self) -> tuple[list[Guest], list[str]]:
        guests: list[Guest] = []
        failures: list[str] = []
        # A broad net, as the instances and what they raise are the host's.
        try:
            instances = list(self._instances or ())
        except Exception as error:
            instances = []
            failures.append(f'the instances cannot be listed: {error!r}')
        if self._instances is None:
            failures.append('the host gave no list of instances')
        for instance in instances:
            uuid = None
            try:
                uuid = _field(instance, 'uuid')
                guests.append(
                    read_guest(instance, self._mappings.get(uuid) or ())
                )
            except Exception as error:
                failures.append(f'instance {uuid} cannot be read: {error!r}')
        return guests, failures
