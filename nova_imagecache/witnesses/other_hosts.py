# SPDX-License-Identifier: Apache-2.0

"""The witness that reads what other hosts have noted of their guests."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

from nova_imagecache.cache import hosts
from nova_imagecache.cache import layouts
from nova_imagecache.cache import registry
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache import errors
from nova_imagecache import names
from nova_imagecache.witnesses import testimonies
from nova_imagecache.witnesses import vetoing

# Of the hosts that a sentence names.
_SHOWN = 3


def _some(words: Iterable[str]) -> str:
    shown = [*words]
    more = len(shown) - _SHOWN
    text = ', '.join(shown[:_SHOWN])
    return text + (f' and {more} more' if more > 0 else '')


def notes(
    known: Mapping[str, hosts.Host],
    kept: Mapping[str, int],
    registered: Mapping[str, float],
    now: float,
) -> Iterator[codes.Problem]:
    """Say which hosts nobody has heard of lately, and which note nothing.

    :param known: other hosts that have noted anything
    :param kept: how many base files each of them needs
    :param registered: when hosts that share ``instances_path`` were heard of
        last, as Nova has it
    """
    away = [
        f'{names.printable(name)} (base files: {kept.get(name, 0)}, last '
        f'heard of: {(now - (host.heard or now)) / 86400:.1f} days ago)'
        for name, host in sorted(known.items())
        if kept.get(name) and host.is_away(now)
    ]
    if away:
        yield codes.Problem(
            codes.Code.AWAY,
            f'hosts that are away keep base files until a pass of theirs: '
            f'{_some(away)}; if one is gone for good, say "nova-imagecache '
            'forget-host HOST"',
        )
    silent = [
        names.printable(name)
        for name, heard in sorted(registered.items())
        if name not in known and now - heard <= hosts.AWAY_SECONDS
    ]
    if silent:
        yield codes.Problem(
            codes.Code.AWAY,
            f'{_some(silent)}: by compute_nodes these hosts share '
            'instances_path, and they have noted nothing in the cache, as '
            'where they run no manager of this package; what their guests '
            'need outside of instances_path is not known',
        )


class OtherHostsWitness:
    """Which base files other hosts need, as they have noted themselves.

    A host may be away for any time, and its guests with it (decision 0080).
    """

    def __init__(
        self,
        layout: layouts.Layout,
        host: str,
        clock: clocks.Clock = clocks.now,
    ) -> None:
        """Look at nothing yet.

        :param host: the one that this is
        """
        self._layout = layout
        self._host = host
        self._clock = clock

    def look(
        self,
        base_files: Collection[str],
        others: testimonies.Testimony | None = None,
    ) -> testimonies.Testimony:
        """Say which of these files the guests of other hosts need."""
        known, failures = self._read()
        said: list[codes.Problem] = []
        try:
            registered = registry.load(self._layout)
            strangers = self._strangers(registered, known)
        except OSError as error:
            registered, strangers = {}, {}
            text = f'which hosts share {self._layout.instances}: {error}'
            said = [codes.Problem(codes.Code.AWAY, text)]
        root = hosts.root_of(self._layout)
        found: dict[str, set[str]] = {name: set() for name in base_files}
        kept = {}
        for name, host in known.items():
            # Inodes alone can be the same by chance (decision 0080).
            in_sight = root is not None and root == host.root
            in_sight = in_sight and name in registered
            if host.blind and not in_sight:
                failures.append(
                    self._veto(
                        f'host {names.printable(name)}',
                        'it could not look at everything in its last pass',
                    )
                )
            needed = host.needs(in_sight) & found.keys()
            kept[name] = len(needed)
            for base_file in needed:
                found[base_file].add(name)
        said += notes(known, kept, strangers, self._clock().wall)
        return testimonies.Testimony(
            hosts={
                name: frozenset(needing)
                for name, needing in found.items()
                if needing
            },
            vetoes=tuple(failures),
            notes=tuple(said),
        )

    def look_again(self, base_files: Collection[str]) -> testimonies.Testimony:
        """Read it once more: a host may have begun to use a file."""
        return self.look(base_files)

    def _read(self) -> tuple[dict[str, hosts.Host], list[vetoing.Veto]]:
        """Read all records but our own, which the others look after."""
        try:
            there = hosts.names_of(self._layout)
        except OSError as error:
            return {}, [self._veto(self._layout.hosts, error.strerror)]
        known = {}
        failures = []
        for name in there:
            if name == self._host:
                continue
            try:
                known[name] = hosts.load(self._layout, name)
            except (errors.Error, OSError) as error:
                failures.append(
                    self._veto(
                        f'what host {names.printable(name)} needs',
                        f'it cannot be read: {error}; a pass of that host '
                        'writes it anew',
                    )
                )
        return known, failures

    def _strangers(
        self, registered: Mapping[str, float], known: Collection[str]
    ) -> dict[str, float]:
        """Give the hosts that have noted nothing, and when they were heard.

        :raises OSError: the other caches cannot be looked for
        """
        silent = registered.keys() - {self._host, *known}
        if silent:
            # Some have a cache each below one instances_path.
            silent -= hosts.in_other_caches(self._layout)
        return {name: registered[name] for name in silent}

    def _veto(self, subject: str, problem: str | None) -> vetoing.Veto:
        return vetoing.Veto(
            vetoing.Reason.OTHER_HOST,
            subject,
            problem or 'it cannot be read',
        )
