# SPDX-License-Identifier: Apache-2.0

"""The witness that knows the host's instances."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import time
from typing import Any

from nova_imagecache import names
from nova_imagecache.witnesses import needs
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing

#: Block device mappings of each instance, by its UUID. As Nova's
#: BlockDeviceMapping, or dictionaries with the same keys.
BlockDeviceMappings = Mapping[str, Iterable[Any]]

_IMAGE_FIELDS = ('image_ref', 'kernel_id', 'ramdisk_id')

# nova/objects/fields.py, and nova/compute/vm_states.py: a guest that is built,
# and about which nothing is being done, has its directory.
_BUILT = frozenset(
    {
        'active', 'paused', 'rescued', 'resized', 'soft-delete', 'stopped',
        'suspended',
    }
)  # fmt: skip

# nova/compute/task_states.py
_RESCUE_TASKS = frozenset({'rescuing', 'unrescuing'})

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


def _text(thing: Any, name: str) -> str | None:
    value = _field(thing, name, None)
    return str(value) if value else None


@dataclasses.dataclass(frozen=True)
class Guest:
    """What is needed of an instance.

    :ivar name: of its directory, before directories had the UUID's name
    :ivar images: of its disk, kernel and ramdisk, by their fingerprints
    :ivar swap_mb: sizes of its swap devices in MiB
    :ivar ephemeral_gb: sizes of its ephemeral devices in GiB
    :ivar host: the one that it is on, where that is said
    :ivar built: whether it has a directory there
    :ivar rescued: whether it may stand on another image than it tells
    """

    uuid: str
    name: str | None
    images: Mapping[str, str]
    swap_mb: frozenset[int] = frozenset()
    ephemeral_gb: frozenset[int] = frozenset()
    host: str | None = None
    built: bool = False
    rescued: bool = False

    @property
    def needs(self) -> needs.Needs:
        """Say what it may need; see :mod:`needs`."""
        return frozenset(
            {
                *self.images,
                *(f'swap_{size}' for size in self.swap_mb),
                *(f'ephemeral_{size}' for size in self.ephemeral_gb),
            }
        )

    def is_on(self, host: str) -> bool:
        """Whether it is on a host, as far as that is said."""
        return self.host is None or self.host == host


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
    state, task = _text(instance, 'vm_state'), _text(instance, 'task_state')
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
        host=_text(instance, 'host'),
        built=state in _BUILT and task is None,
        rescued=state == 'rescued' or task in _RESCUE_TASKS,
    )


@dataclasses.dataclass(frozen=True)
class GuestList:
    """The host's list as it was read: plain values, of no object of the host.

    :ivar failures: what could not be read, and why
    :ivar with_devices: whether it tells of swap and ephemeral devices
    """

    guests: tuple[Guest, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    with_devices: bool = False


# After so many the other threads of the host have their turn, of which green
# ones get none otherwise.
_BATCH = 50


def read_guests(
    instances: Iterable[Any] | None,
    mappings: BlockDeviceMappings | None = None,
) -> GuestList:
    """Read what is needed of the host's instances, in the host's own thread.

    Raises nothing: what the host raises is among the failures.

    :param mappings: where the host does not pass them, the overlays alone
        tell who uses swap and ephemeral base files
    """
    guests: list[Guest] = []
    failures: list[tuple[str, str]] = []
    # A broad net, as the instances and what they raise are the host's.
    try:
        listed = list(instances or ())
    except Exception as error:
        listed = []
        failures.append(('the instances', f'not to be listed: {error!r}'))
    if instances is None:
        failures.append(('the instances', 'the host gave no list of them'))
    for number, instance in enumerate(listed, start=1):
        if number % _BATCH == 0:
            time.sleep(0)
        uuid = None
        try:
            uuid = _field(instance, 'uuid')
            devices = (mappings or {}).get(uuid) or ()
            guests.append(read_guest(instance, devices))
        except Exception as error:
            failures.append(
                (f'instance {uuid}', f'it cannot be read: {error!r}')
            )
    return GuestList(tuple(guests), tuple(failures), mappings is not None)


def _may_need(guest: Guest, told: GuestList) -> needs.Needs:
    unknown = frozenset() if told.with_devices else needs.ANY_DEVICE
    return guest.needs | unknown


class InstanceWitness:
    """Who uses what, according to the instances that the host hands in.

    Every instance counts, whatever its state and wherever it runs: one that
    is resized, shelved or soft-deleted may come back to its base file.
    """

    def __init__(
        self,
        instances: GuestList | Iterable[Any] | None,
        mappings: BlockDeviceMappings | None = None,
        host: str | None = None,
    ) -> None:
        """Take the host's instances.

        :param instances: what was read of them, or the host's own, which are
            read when they are asked for
        :param mappings: of these, see :func:`read_guests`
        :param host: the one that this is
        """
        self._instances = instances
        self._mappings = mappings
        self._host = host

    def look(
        self,
        base_files: Collection[str],
        others: testimonies.Testimony | None = None,
    ) -> testimonies.Testimony:
        """Say which of these files the instances were made from."""
        told = (
            self._instances
            if isinstance(self._instances, GuestList)
            else read_guests(self._instances, self._mappings)
        )
        guests = told.guests
        by_word: dict[str, set[str]] = {}
        image_ids: dict[str, str] = {}
        ours: set[str] = set()
        for guest in guests:
            image_ids |= guest.images
            for word in guest.needs:
                by_word.setdefault(word, set()).add(guest.uuid)
            if self._host is None or guest.is_on(self._host):
                ours.add(guest.uuid)
        users = {}
        for name in base_files:
            found = {
                guest
                for word in needs.words_for(name)
                for guest in by_word.get(word, ())
            }
            if found:
                users[name] = frozenset(found)
        images = {
            name: image_ids[fingerprint]
            for name in base_files
            if names.kind_of(name).is_image
            and (fingerprint := names.fingerprint(name)) in image_ids
        }
        return testimonies.Testimony(
            users,
            images=images,
            aliases={guest.name: guest.uuid for guest in guests if guest.name},
            by_list=True,
            said={
                name: found & ours
                for name, found in users.items()
                if found & ours
            },
            known={
                guest.uuid: _may_need(guest, told)
                for guest in guests
                if not guest.rescued
            },
            expected=self._expected(guests),
            vetoes=tuple(
                vetoing.Veto(vetoing.Reason.UNANSWERED, *failure)
                for failure in told.failures
            ),
        )

    def _expected(
        self, guests: Collection[Guest]
    ) -> dict[str, frozenset[str]] | None:
        """Give the guests that this host has, if that is told."""
        listed = [guest for guest in guests if guest.host is not None]
        if self._host is None or (guests and not listed):
            return None
        return {
            guest.uuid: frozenset(filter(None, (guest.uuid, guest.name)))
            if guest.built
            else frozenset()
            for guest in listed
            if guest.host == self._host
        }

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Add nothing: the host's list is what it was."""
        return testimonies.Testimony()
