# SPDX-License-Identifier: Apache-2.0

"""What a metric is, and how to make one of values: pure functions."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import enum

from nova_imagecache.outlets import summaries


class Kind(enum.StrEnum):
    """What a metric is to Prometheus."""

    COUNTER = 'counter'
    GAUGE = 'gauge'


Labels = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """One metric.

    :ivar name: without the prefix
    :ivar text: what it is, in a sentence
    :ivar labels: the names of its labels
    :ivar samples: values by the values of its labels
    """

    name: str
    kind: Kind
    text: str
    labels: Labels = ()
    samples: Sequence[tuple[Labels, float]] = ()


def label_of(text: str) -> str:
    """Give a value as it is in a label: without spaces."""
    return text.replace(' ', '_')


def gauge(name: str, text: str, value: float | None) -> Family:
    """Give a metric that goes up and down; without a value, its name alone."""
    samples = () if value is None else (((), float(value)),)
    return Family(name, Kind.GAUGE, text, (), samples)


def counter(name: str, text: str, value: float) -> Family:
    """Give a metric that only grows."""
    return Family(name, Kind.COUNTER, text, (), (((), float(value)),))


def by(
    kind: Kind,
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> Family:
    """Give a metric that has a value for each value of one label."""
    samples = [((label_of(each),), float(n)) for each, n in values.items()]
    return Family(name, kind, text, (label,), samples)


def pair(
    kind: Kind,
    files: tuple[str, str],
    size: tuple[str, str],
    labels: Labels,
    amounts: Mapping[Labels, summaries.Amount],
) -> Iterator[Family]:
    """Give the metric of some files, and that of their bytes.

    :param files: its name, and what it is
    :param size: likewise
    """
    for (name, text), numbers in (
        (files, [(key, each.files) for key, each in amounts.items()]),
        (size, [(key, each.bytes) for key, each in amounts.items()]),
    ):
        samples = [(key, float(number)) for key, number in numbers]
        yield Family(name, kind, text, labels, samples)
