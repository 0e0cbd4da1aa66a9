# SPDX-License-Identifier: Apache-2.0

"""What passes remember, as it is on the disk: of files, and of hosts."""

from collections.abc import Mapping
import dataclasses
import logging
import os

import msgspec

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import machines
from nova_imagecache.cache import records
from nova_imagecache.cache import sightings
from nova_imagecache.cache import uses
from nova_imagecache import clocks
from nova_imagecache import errors

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Vetoed:
    """That nothing may go.

    :ivar since: the first pass of a host in which it was so, and in all since
    :ivar reasons: in the last one, a sentence each, and five at most
    """

    since: clocks.Instant
    reasons: tuple[str, ...]


#: Of the large record, and of the small one.
Version = tuple[identity.Stat, identity.Stat | None]


@dataclasses.dataclass(frozen=True)
class Passes:
    """What is remembered of hosts, on the disk; see states.State."""

    relieved: clocks.Instant | None
    boots: dict[str, tuple[machines.Boot, ...]]
    steps: dict[str, tuple[clocks.Step, ...]]
    vetoed: dict[str, Vetoed]
    last_removal: clocks.Instant | None


@dataclasses.dataclass(frozen=True)
class Record:
    """What is remembered of files, on the disk; see states.State.

    :ivar hosts: what an earlier release has remembered of hosts; None where
        there is a record of that
    """

    files: dict[str, sightings.Sighting]
    used: tuple[uses.Group, ...]
    hosts: Passes | None


def _from_3(body: records.Values) -> records.Values:
    """Remember damage, of which there is a place to note it now."""
    files = body['files'].items()
    files = {name: {**sighting, 'damage': None} for name, sighting in files}
    return {**body, 'files': files}


def _from_4(body: records.Values) -> records.Values:
    """Remember more of each host than its clocks in its last pass."""
    last = {
        host: [{'passed': passed, 'machine': None, 'twin': None}]
        for host, passed in body['clocks'].items()
    }
    new = {'boots': last, 'steps': {}, 'vetoed': {}, 'last_removal': None}
    return {**body, **new}


def _from_5(body: records.Values) -> records.Values:
    """Tell what is remembered of files from what is of hosts."""
    body = dict(body)
    return {'files': body.pop('files'), 'used': [], 'hosts': body}


def _condense(body: Record) -> None:
    """Have what many files have in common be there once, and each name."""
    instants: dict[tuple[float, float, str], clocks.Instant] = {}
    for sighting in body.files.values():
        instant = sighting.seen
        key = instant.wall, instant.boottime, instant.boot_id
        # Nobody else has it yet.
        msgspec.structs.force_setattr(
            sighting, 'seen', instants.setdefault(key, instant)
        )
    names = {name: name for name in body.files}
    for group in body.used:
        files = tuple([names.get(name, name) for name in group.files])
        object.__setattr__(group, 'files', files)


# 10,000 files make 5 MiB.
FORMAT = records.Format(
    'state',
    6,
    Record,
    {3: _from_3, 4: _from_4, 5: _from_5},
    condense=_condense,
    limit=64 * 2**20,
)
# A host makes 5 KiB at most.
PASSES = records.Format('passes', 1, Passes, limit=16 * 2**20)


@dataclasses.dataclass(frozen=True)
class Read:
    """What was read.

    :ivar version: of the files that it was read from, or of earlier ones
    """

    record: Record
    passes: Passes
    version: Version | None


def version_of(layout: layouts.Layout) -> Version | None:
    """Say which files there are: what is written anew is another one."""
    try:
        state = identity.stat_of(layout.state, fresh=True)
    except FileNotFoundError:
        return None
    try:
        return state, identity.stat_of(layout.passes, fresh=True)
    except FileNotFoundError:
        return state, None


def save(layout: layouts.Layout, record: Record) -> None:
    """Write what is remembered of files.

    :raises nova_imagecache.errors.Newer: a newer release has written it
    :raises OSError: it was not saved
    """
    FORMAT.save(layout, layout.state, record)


def save_passes(layout: layouts.Layout, passes: Passes) -> None:
    """Write what is remembered of hosts.

    :raises nova_imagecache.errors.Newer: a newer release has written it
    :raises OSError: it was not saved
    """
    PASSES.save(layout, layout.passes, passes)


def load(layout: layouts.Layout) -> Read | None:
    """Read both records; a first pass finds nothing.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises nova_imagecache.errors.Newer: a newer release has written it
    :raises OSError: it cannot be read
    """
    problem = errors.Damaged(f'{layout.passes} is missing')
    for _time in range(2):
        # Before reading: what is published meanwhile then counts as newer.
        version = version_of(layout)
        passes = None
        try:
            # First, as the other has all that was known when it was written.
            passes = PASSES.load(layout.passes)
        except errors.Damaged as error:
            problem = errors.Damaged(f'{layout.passes}: {error}')
        record = FORMAT.load(layout.state)
        if record is None:
            return None
        if record.hosts is not None:
            return Read(record, record.hosts, version)
        if passes is not None:
            hosts = {host for group in record.used for host in group.hosts}
            if hosts <= passes.boots.keys():
                return Read(record, passes, version)
            # Or a host has joined just now, and has written both.
            problem = errors.Damaged(f'{layout.passes} is of another cache')
        # The first ones may just have been written.
    raise problem


def rescue(
    layout: layouts.Layout, error: errors.Damaged
) -> Mapping[str, sightings.Sighting]:
    """Set aside what is damaged; give what is still known of files.

    When they were used last is not.

    :param error: that of loading it
    :raises nova_imagecache.errors.Newer: a newer release has written it
    :raises OSError: it cannot be read
    """
    try:
        record = FORMAT.load(layout.state)
    except errors.Damaged as found:
        records.set_aside(layout.state, found)
        return {}
    if os.path.lexists(layout.passes):
        records.set_aside(layout.passes, error)
    else:
        LOG.warning('[P16] %s: %s', layout.state, error)
    return {} if record is None else record.files
