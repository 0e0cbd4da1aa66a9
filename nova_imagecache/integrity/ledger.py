# SPDX-License-Identifier: Apache-2.0

"""What is known of the content of one base file."""

import dataclasses
from typing import Any

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import records
from nova_imagecache.cache import status
from nova_imagecache import errors

_KIND = 'ledger'
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The ledger of one incarnation of a base file.

    :ivar sha1: SHA-1 of the whole file when it was first read, after which it
        never changes; None if it could not be read yet
    :ivar stored: the stored checksum that it was last compared with
    :ivar verified: when the file was last read and compared, in seconds
        since the epoch; None if never
    :ivar found: the SHA-1 that the last comparison gave; None when it agreed
        with both others
    :ivar unreadable: why the last reading failed; None when it did not
    :ivar attempted: when it failed, in seconds since the epoch
    :ivar rebaselined: when this ledger was begun because all that was known
        of the file before had been lost, in seconds since the epoch
    """

    key: status.Key
    sha1: str | None = None
    stored: str | None = None
    verified: float | None = None
    found: str | None = None
    unreadable: str | None = None
    attempted: float | None = None
    rebaselined: float | None = None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _time(value: Any) -> float | None:
    return None if value is None else float(value)


def _decode(body: records.Body) -> Ledger:
    try:
        return Ledger(
            status.decode_key(body['key']),
            _text(body['sha1']),
            _text(body['stored']),
            _time(body['verified']),
            _text(body['found']),
            _text(body['unreadable']),
            _time(body['attempted']),
            _time(body['rebaselined']),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise errors.Damaged('its fields are not those of a ledger') from None


def load_any(layout: layouts.Layout, name: str) -> Ledger | None:
    """Read the ledger of a file of that name, this one or an earlier one.

    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises OSError: it cannot be read
    """
    body = records.load(layout.ledger(name), _KIND, _VERSION)
    return None if body is None else _decode(body)


def load(
    layout: layouts.Layout, name: str, incarnation: status.Incarnation
) -> Ledger | None:
    """Read the ledger of this very file.

    :returns: None when there is none, or only that of an earlier file of the
        same name
    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises OSError: it cannot be read
    """
    ledger = load_any(layout, name)
    return ledger if ledger and ledger.key == incarnation.key else None


def save(layout: layouts.Layout, name: str, ledger: Ledger) -> None:
    """Publish a ledger. The caller holds the file's guard.

    :raises OSError: it was not saved
    """
    records.save(
        layout,
        layout.ledger(name),
        _KIND,
        _VERSION,
        dataclasses.asdict(ledger),
    )
