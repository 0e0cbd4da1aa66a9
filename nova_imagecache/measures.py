# SPDX-License-Identifier: Apache-2.0

"""Bytes and times as people read them: pure functions."""

import datetime

from oslo_utils import units

_BYTES = (
    (units.Ti, 'TiB'),
    (units.Gi, 'GiB'),
    (units.Mi, 'MiB'),
    (units.Ki, 'KiB'),
)
_SPANS = ((86400, 'd'), (3600, 'h'), (60, 'min'))


def size(value: float) -> str:
    """Give a number of bytes in the unit that fits."""
    for factor, unit in _BYTES:
        if value >= factor:
            return f'{value / factor:.1f} {unit}'
    # Of a small rate the digits count.
    return f'{value:.0f} B' if value >= 9.5 else f'{value:.1g} B'


def span(seconds: float) -> str:
    """Give a span of time in the unit that fits."""
    seconds = round(seconds)
    for factor, unit in _SPANS:
        if seconds >= factor:
            return f'{seconds / factor:.0f} {unit}'
    return f'{seconds} s'


def rate(value: float) -> str:
    """Give bytes per second, with so many digits that it is not 0."""
    return f'{size(value)}/s'


def day(when: float) -> str:
    """Give a moment, in UTC."""
    moment = datetime.datetime.fromtimestamp(when, datetime.UTC)
    return moment.strftime('%d %b %H:%M')
