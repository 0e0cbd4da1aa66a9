# SPDX-License-Identifier: Apache-2.0

"""What is known of the content of one base file."""

import dataclasses

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import records
from nova_imagecache.cache import status
from nova_imagecache import errors

_KIND = 'ledger'
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The ledger of one incarnation of a base file.

    :ivar sha1: SHA-1 of the whole file when it was first read
    :ivar verified: when the file was last read and compared, in seconds
        since the epoch; None if never
    :ivar found: the other SHA-1 that the last comparison gave; None when it
        agreed
    """

    key: tuple[int, int | None, int | None]
    sha1: str
    verified: float | None = None
    found: str | None = None


def load(
    layout: layouts.Layout, name: str, incarnation: status.Incarnation
) -> Ledger | None:
    """Read the ledger of this very file.

    :returns: None when there is none, or only that of an earlier file of the
        same name
    :raises nova_imagecache.errors.Damaged: there is something else there
    :raises OSError: it cannot be read
    """
    body = records.load(layout.ledger(name), _KIND, _VERSION)
    if body is None:
        return None
    try:
        ledger = Ledger(
            tuple(body['key']), body['sha1'], body['verified'], body['found']
        )
    except (KeyError, TypeError):
        raise errors.Damaged('its fields are not those of a ledger') from None
    return ledger if ledger.key == incarnation.key else None


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
