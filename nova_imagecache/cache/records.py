# SPDX-License-Identifier: Apache-2.0

"""Our own files: JSON that knows its kind and version, and checks itself.

A record is one JSON object on one line, and what it describes, if anything::

    {"kind": "ledger", "version": 2, "sha256": "...", "sealed": {
        "body": {...}, "payload": {"length": 32, "sha256": "..."}}}
    32 bytes

where the outer ``sha256`` is that of ``sealed``, serialised with sorted keys
and without white space. So the line can be read, and believed, without the
payload. The digests tell a torn or altered record from a sound one; they are
no protection against anybody.
"""

import contextlib
import errno
import hashlib
import json
import os
from typing import Any

from oslo_log import log as logging

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import publish
from nova_imagecache.cache import status
from nova_imagecache import errors

LOG = logging.getLogger(__name__)

# Far above any record of ours: 10,000 files make a state of 2 MiB.
_SIZE_LIMIT = 64 * 1024 * 1024

#: What :func:`set_aside` appends.
DAMAGED_SUFFIX = '.damaged'

Body = dict[str, Any]


def _digest(sealed: Body) -> str:
    text = json.dumps(sealed, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


def _parse(line: bytes, kind: str, version: int) -> Body:
    """Check the line of a record, and give what it seals."""
    try:
        record = json.loads(line)
        found = (record['kind'], record['version'])
        sealed = record['sealed']
        digest = record['sha256']
    except (ValueError, KeyError, TypeError, RecursionError):
        raise errors.Damaged('it is not a record of ours') from None
    if found != (kind, version):
        raise errors.Damaged(
            f'it is of kind {found[0]!r}, version {found[1]!r}, and not of '
            f'kind {kind!r}, version {version}'
        )
    if not isinstance(sealed, dict) or digest != _digest(sealed):
        raise errors.Damaged('its content does not match its digest')
    return sealed


def _load(
    path: str, kind: str, version: int, with_payload: bool
) -> tuple[Body, bytes] | None:
    try:
        fd = status.open_regular(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise errors.Damaged('it is not a regular file') from None
        raise
    with os.fdopen(fd, 'rb') as file:
        if os.fstat(fd).st_size > _SIZE_LIMIT:
            raise errors.Damaged('it is too large')
        line = file.readline(_SIZE_LIMIT)
        if not line.endswith(b'\n'):
            raise errors.Damaged('it is cut short')
        sealed = _parse(line, kind, version)
        payload = sealed['payload']
        if os.fstat(fd).st_size != len(line) + payload['length']:
            raise errors.Damaged('its payload has another length')
        if not with_payload:
            return sealed['body'], b''
        data = file.read(payload['length'])
    if hashlib.sha256(data).hexdigest() != payload['sha256']:
        raise errors.Damaged('its payload does not match its digest')
    return sealed['body'], data


def load(path: str, kind: str, version: int) -> Body | None:
    """Read a record, without its payload.

    :returns: its body, or None when there is no such file
    :raises nova_imagecache.errors.Damaged: it is not a sound record of this
        kind and version
    :raises OSError: it cannot be read
    """
    found = _load(path, kind, version, with_payload=False)
    return None if found is None else found[0]


def load_whole(path: str, kind: str, version: int) -> tuple[Body, bytes]:
    """Read a record that is there, and its payload.

    :raises nova_imagecache.errors.Damaged: it is not a sound record of this
        kind and version
    :raises OSError: it cannot be read
    """
    found = _load(path, kind, version, with_payload=True)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return found


def save(
    layout: layouts.Layout,
    path: str,
    kind: str,
    version: int,
    body: Body,
    payload: bytes = b'',
) -> None:
    """Publish a record.

    :raises OSError: it was not published
    """
    sealed = {
        'body': body,
        'payload': {
            'length': len(payload),
            'sha256': hashlib.sha256(payload).hexdigest(),
        },
    }
    record = {
        'kind': kind,
        'version': version,
        'sha256': _digest(sealed),
        'sealed': sealed,
    }
    os.makedirs(os.path.dirname(path), exist_ok=True)
    line = json.dumps(record).encode() + b'\n'
    publish.publish(path, line + payload, layout.temporary)


def set_aside(path: str, error: errors.Damaged) -> None:
    """Move a damaged record out of the way, for somebody to look at.

    There is one place for it per record: a node that damages records all
    the time does not fill its disk with them.
    """
    aside = path + DAMAGED_SUFFIX
    LOG.warning(
        'The record %(path)s is damaged: %(error)s. It is now '
        '%(aside)s, and what it said has to be learnt again.',
        {'path': path, 'error': error, 'aside': aside},
    )
    with contextlib.suppress(OSError):
        os.rename(path, aside)
