# SPDX-License-Identifier: Apache-2.0

"""Noting in the account of a host what a repair does, and what it was told."""

import dataclasses

from nova_imagecache.cache import layouts
from nova_imagecache import clocks
from nova_imagecache.heal import accounts
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import sources

# The name of the source.
_IMAGE_SERVICE = 'image-service'


def note_begun(
    layout: layouts.Layout, host: str, name: str, blocks: int
) -> None:
    """Note that a person has some blocks repaired.

    The caller has the turn to read in this cache.

    :raises OSError: it was not noted
    """
    before = accounts.load(layout, host)
    after = before.beginning(name, blocks)
    if after != before:
        accounts.save(layout, host, after)


def settle(layout: layouts.Layout, host: str) -> None:
    """Count the repairs of a host that were killed.

    The caller has the turn to read in this cache.

    :raises OSError: they are not counted yet
    """
    account = accounts.load(layout, host)
    if account.begun:
        accounts.save(layout, host, account.settled())


def note_image(
    layout: layouts.Layout,
    host: str,
    image: str,
    is_gone: bool,
    now: clocks.Instant,
) -> None:
    """Note whether there is an image in the image service.

    :raises OSError: it was not noted
    """
    before = accounts.load(layout, host)
    after = before.seeing(image, is_gone, now)
    if after != before:
        accounts.save(layout, host, after)


#: After which the service has told of the image; none where data was good.
_THERE = frozenset(('', sources.State.OTHER_BYTES, sources.State.TOO_LARGE))


def note_told(
    layout: layouts.Layout,
    host: str,
    image: str | None,
    outcome: outcomes.Outcome,
    now: clocks.Instant,
) -> None:
    """Note what a repair was told of an image by the image service, if it was.

    :raises OSError: it was not noted
    """
    state, _message = outcome.sources.get(_IMAGE_SERVICE, ('', ''))
    is_gone = state == sources.State.GONE
    # Bytes alone may be those of an error, or of an answer that was cut off.
    is_there = state in _THERE and outcome.fetched.get(_IMAGE_SERVICE)
    if image is not None and (is_gone or is_there):
        note_image(layout, host, image, is_gone, now)


def note_by_hand(
    layout: layouts.Layout, host: str, outcome: outcomes.Outcome
) -> None:
    """Count what a person has repaired, for which there is no budget.

    The caller has the turn to read in this cache, as who repairs without one.

    :raises OSError: it was not noted
    """
    before = accounts.load(layout, host)
    after = counted(before, outcome)
    if outcome.blocks and not (outcome.left or outcome.stopped):
        after = after.without(outcome.name)
    if after != before:
        accounts.save(layout, host, after)


def counted(
    account: accounts.Account, outcome: outcomes.Outcome
) -> accounts.Account:
    """Give an account with an outcome in its totals."""
    repaired, results = dict(account.repaired), dict(account.results)
    begun = dict(account.begun)
    begun.pop(outcome.name, None)
    if outcome.interrupted:
        accounts.add(
            results, str(outcomes.Result.INTERRUPTED), outcome.interrupted
        )
    fetched = {key: dict(each) for key, each in account.fetched.items()}
    for block in outcome.blocks:
        accounts.add(results, str(block.result), 1)
        if block.result is outcomes.Result.REPAIRED:
            accounts.add(repaired, block.source, 1)
    for source, length in outcome.fetched.items():
        if length:
            result = outcome.result_of(source)
            accounts.add(fetched.setdefault(source, {}), result, length)
    return dataclasses.replace(
        account,
        repaired=repaired,
        results=results,
        begun=begun,
        fetched=fetched,
    )
