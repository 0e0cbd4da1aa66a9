# SPDX-License-Identifier: Apache-2.0

"""Our own files: JSON that knows its kind and version, and checks itself.

A record is one JSON object::

    {"kind": "ledger", "version": 1, "sha256": "...", "body": {...}}

where ``sha256`` is that of the body, serialised with sorted keys and without
white space. It tells a torn or altered record from a sound one; it is no
protection against anybody.
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


def _digest(body: Body) -> str:
    text = json.dumps(body, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


def _parse(data: bytes, kind: str, version: int) -> Body:
    try:
        record = json.loads(data)
        found = (record['kind'], record['version'])
        body = record['body']
        digest = record['sha256']
    except (ValueError, KeyError, TypeError, RecursionError):
        raise errors.Damaged('it is not a record of ours') from None
    if found != (kind, version):
        raise errors.Damaged(
            f'it is of kind {found[0]!r}, version {found[1]!r}, and not of '
            f'kind {kind!r}, version {version}'
        )
    if not isinstance(body, dict) or digest != _digest(body):
        raise errors.Damaged('its content does not match its digest')
    return body


def load(path: str, kind: str, version: int) -> Body | None:
    """Read a record.

    :returns: its body, or None when there is no such file
    :raises nova_imagecache.errors.Damaged: it is not a sound record of this
        kind and version
    :raises OSError: it cannot be read
    """
    try:
        fd = status.open_regular(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise errors.Damaged('it is not a regular file') from None
        raise
    with os.fdopen(fd, 'rb') as file:
        data = file.read(_SIZE_LIMIT + 1)
    if len(data) > _SIZE_LIMIT:
        raise errors.Damaged('it is too large')
    return _parse(data, kind, version)


def save(
    layout: layouts.Layout, path: str, kind: str, version: int, body: Body
) -> None:
    """Publish a record.

    :raises OSError: it was not published
    """
    record = {
        'kind': kind,
        'version': version,
        'sha256': _digest(body),
        'body': body,
    }
    os.makedirs(os.path.dirname(path), exist_ok=True)
    publish.publish(path, json.dumps(record).encode(), layout.temporary)


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
