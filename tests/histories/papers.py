# SPDX-License-Identifier: Apache-2.0

"""What is on the disk of what is known of a base file, for the judge.

Read in plain Python, so that the product cannot hide a loss from it.
"""

import dataclasses
import functools
import hashlib
import json
import os
from typing import Any

import xxhash

from nova_imagecache.cache import layouts
from tests.histories import worlds

#: Bytes in a block: the fewest that a ledger may have.
BLOCK = 4096

_LEDGER_VERSION = 4
_STATE_VERSION = 6

Key = tuple[int, int | None, int | None]


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@functools.lru_cache(maxsize=4096)
def _digest(algorithm: str, data: bytes) -> bytes:
    if algorithm == 'xxh3_128':
        return xxhash.xxh3_128(data).digest()
    if algorithm == 'blake2b':
        return hashlib.blake2b(data, digest_size=32).digest()
    return hashlib.new(algorithm, data).digest()


@dataclasses.dataclass
class Record:
    """One record.

    :ivar payload: None where it is not the one that was written
    """

    version: int
    body: dict[str, Any]
    payload: bytes | None = dataclasses.field(repr=False)


@functools.lru_cache(maxsize=4096)
def _parse(data: bytes) -> Record | None:
    line, _end, payload = data.partition(b'\n')
    try:
        record = json.loads(line)
        sealed = record['sealed']
        text = json.dumps(sealed, sort_keys=True, separators=(',', ':'))
        described = sealed['payload']
        if (
            hashlib.sha256(text.encode()).hexdigest() != record['sha256']
            or len(payload) != described['length']
        ):
            return None
        sound = hashlib.sha256(payload).hexdigest() == described['sha256']
        return Record(
            record['version'], sealed['body'], payload if sound else None
        )
    except (ValueError, KeyError, TypeError):
        return None


def write(path: str, kind: str, record: Record) -> None:
    """Write a record as a release of its version does."""
    payload = record.payload or b''
    sealed = {
        'body': record.body,
        'payload': {
            'length': len(payload),
            'sha256': hashlib.sha256(payload).hexdigest(),
        },
    }
    text = json.dumps(sealed, sort_keys=True, separators=(',', ':'))
    line = json.dumps(
        {
            'kind': kind,
            'version': record.version,
            'sha256': hashlib.sha256(text.encode()).hexdigest(),
            'sealed': sealed,
        }
    )
    with open(path, 'wb') as file:
        file.write(line.encode() + b'\n' + payload)


def load(path: str) -> Record | None:
    """Read a record; None where there is none, or it is damaged."""
    try:
        return _parse(worlds.read(path))
    except OSError:
        return None


@dataclasses.dataclass
class Papers:
    """All that is on the disk about one base file.

    :ivar ledger: its ledger, None if it has none that is sound
    :ivar newer: whether that is of a newer release, and says nothing
    :ivar sightings: what the state says under its name, and under those that
        it had in the trash
    :ivar noting: whether the state can be written to
    """

    sidecar: str | None
    ledger: Record | None
    newer: bool
    sightings: tuple[dict[str, Any] | None, ...]
    noting: bool

    @classmethod
    def of(cls, layout: layouts.Layout, name: str) -> 'Papers':
        ledger = load(layout.ledger(name))
        newer = ledger is not None and ledger.version > _LEDGER_VERSION
        state = load(layout.state)
        noting = state is None or state.version <= _STATE_VERSION
        files = state.body['files'] if state and noting else {}
        return cls(
            _sidecar(layout.file(name) + '.sha1'),
            None if newer else ledger,
            newer,
            (
                files.get(name),
                *(files[each] for each in files if each[:-9] == name),
            ),
            noting,
        )

    def get(self, field: str) -> Any:
        """Look up what the ledger says, as the last release would."""
        if self.ledger is None:
            return None
        if field == 'unsettled' and self.ledger.version == 2:
            body = self.ledger.body
            return [] if body['settled'] else _all(body)
        return self.ledger.body.get(field)

    @property
    def digests(self) -> dict[int, bytes]:
        """Give the digests of blocks that are known."""
        if self.ledger is None or not self.ledger.payload:
            return {}
        count = -(-self.get('size') // BLOCK)
        payload = self.ledger.payload
        kinds, rest = payload[:count], payload[count:]
        width = len(_digest(self.get('algorithm'), b''))
        found = {}
        for index, kind in enumerate(kinds):
            if kind == ord('0'):
                length = min(BLOCK, self.get('size') - index * BLOCK)
                found[index] = _digest(self.get('algorithm'), bytes(length))
            elif kind in b'#@':
                found[index], rest = rest[:width], rest[width:]
        return found

    @property
    def unsettled(self) -> set[int]:
        """Give the blocks that may still be written to."""
        if self.ledger is None or self.get('read') is None:
            return set(range(1000))
        return blocks_in(self.get('unsettled'))

    def bad(self, *damages: str) -> set[int]:
        """Give the blocks that are bad in some ways."""
        if self.ledger is None:
            return set()
        return blocks_in(
            run for run in self.get('bad') if run['damage'] in damages
        )

    def _true_block(self, index: int, digest: bytes, truth: bytes) -> bool:
        start = index * BLOCK
        length = min(BLOCK, self.get('size') - start)
        data = truth[start : start + length]
        return len(data) == length and digest == _digest(
            self.get('algorithm'), data
        )

    def evidence(self, truth: bytes) -> set[str | int]:
        """Give what is known that is right: blocks, and whole files."""
        found: set[str | int] = {
            index
            for index, digest in self.digests.items()
            if self._true_block(index, digest, truth)
        }
        if self.get('sha1') == sha1(truth):
            found.add('sha1')
        if self.sidecar == sha1(truth):
            found.add('sidecar')
        return found

    def lies(self, truth: bytes) -> bool:
        """Whether something is known that is wrong."""
        wanted = {None, sha1(truth)}
        return (
            not {self.get('sha1'), self.sidecar, self.get('stored')} <= wanted
            or (self.ledger is not None and self.get('size') != len(truth))
            or any(
                not self._true_block(index, digest, truth)
                for index, digest in self.digests.items()
            )
        )


def _all(body: dict[str, Any]) -> list[dict[str, int]]:
    count = -(-body['size'] // BLOCK)
    return [{'first': 0, 'count': count}] if count else []


def blocks_in(runs: Any) -> set[int]:
    return {
        index
        for run in runs
        for index in range(run['first'], run['first'] + run['count'])
    }


def _sidecar(path: str) -> str | None:
    if not os.path.exists(path):
        return None
    text = worlds.read(path).decode('ascii', 'replace').strip()
    hexadecimal = len(text) == 40 and set(text) <= set('0123456789abcdef')
    return text if hexadecimal else None


def _older_state(state: Record, passes: Record) -> Record:
    hosts = {
        host: boots[-1]['passed']
        for host, boots in passes.body['boots'].items()
    }
    files = {
        name: {k: v for k, v in sighting.items() if k != 'damage'}
        for name, sighting in state.body['files'].items()
    }
    for group in state.body['used']:
        last = max(hosts[host]['wall'] for host in group['hosts'])
        for name in group['files']:
            if name in files:
                noted = files[name]['last_used'] or 0
                files[name]['last_used'] = max(noted, last)
    relieved = passes.body['relieved']
    body = {'relieved': relieved, 'clocks': hosts, 'files': files}
    return Record(3, body, state.payload)


def older(kind: str, path: str, record: Record) -> Record | None:
    """Give a record as an earlier release wrote it, if it could."""
    body = {**record.body}
    if kind == 'state' and record.version == _STATE_VERSION:
        beside = os.path.join(os.path.dirname(path), 'passes')
        passes = load(beside)
        return passes and _older_state(record, passes)
    if kind != 'ledger' or record.version != _LEDGER_VERSION:
        return None
    unsettled = body.pop('unsettled')
    new = [
        body.pop(field) for field in ('question', 'differs', 'anew', 'origin')
    ]
    doubtful = any(run['damage'] == 'doubtful' for run in body['bad'])
    if any(new) or doubtful or unsettled not in ([], _all(body)):
        return None
    settled = body['read'] is not None and not unsettled
    return Record(
        2,
        {**body, 'settled': settled, 'changed': False},
        record.payload and _without_strong(body, record.payload),
    )


def _without_strong(body: dict[str, Any], payload: bytes) -> bytes:
    """Leave out the digests that only the last release has."""
    count = -(-body['size'] // body['block_size'])
    kinds = payload[:count]
    end = len(payload) - 32 * kinds.count(b'@')
    return kinds.replace(b'@', b'#') + payload[count:end]
