# SPDX-License-Identifier: Apache-2.0

"""Metrics in the formats of Prometheus, by ``prometheus_client``.

That is an extra: it is imported only when somebody wants metrics.
"""

from collections.abc import Callable
from collections.abc import Iterable
import functools
import importlib
import importlib.metadata
import os
from typing import Any

from nova_imagecache.cache import coordination
from nova_imagecache.cache import layouts
from nova_imagecache.cache import publish
from nova_imagecache.cache import tallies
from nova_imagecache import clocks
from nova_imagecache import errors
from nova_imagecache.heal import accounts
from nova_imagecache.heal import outcomes
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import summaries
from nova_imagecache.scrub import activities

Gather = Callable[[], metrics.Facts]


@functools.cache
def _version() -> str:
    return importlib.metadata.version('nova-imagecache')


def client() -> Any:
    """Import ``prometheus_client``.

    :raises nova_imagecache.errors.Error: it is not installed
    """
    # All that is on the disk of it: who calls this may be about to become the
    # owner, and may not be able to read it then.
    _version()
    try:
        return importlib.import_module('prometheus_client')
    except ImportError:
        raise errors.Error(
            'metrics need prometheus_client, which is not installed: say '
            '"pip install nova-imagecache[metrics]", or install '
            'python3-prometheus-client'
        ) from None


def _repairs(account: accounts.Account) -> metrics.Repairs:
    """Give what a host has repaired, as its account says."""
    repaired = str(outcomes.Result.REPAIRED)
    return metrics.Repairs(
        {
            **{
                (source, repaired): blocks
                for source, blocks in account.repaired.items()
            },
            **{
                ('none', result): blocks
                for result, blocks in account.results.items()
                if result != repaired
            },
        },
        {(source, 'any'): size for source, size in account.fetched.items()},
        not account.left(clocks.now()),
    )


def gather(
    layout: layouts.Layout,
    host: str,
    repairs: metrics.Repairs | None = None,
    reader: summaries.Reader | None = None,
) -> metrics.Facts:
    """Read the records that metrics are made of, and no other file.

    What cannot be read is told, and ends nothing.

    :param reader: of the summary, for who asks again and again
    """
    reader = reader or summaries.Reader()
    unreadable = []
    summary = None
    counts: dict[tallies.Event, int] = {}
    try:
        summary = reader.load(layout, host)
    except (errors.Error, OSError) as error:
        unreadable.append(f'{summaries.path_of(layout, host)}: {error}')
    try:
        counts = tallies.load(layout, host)
    except OSError as error:
        unreadable.append(f'{layout.tallies}: {error}')
    return metrics.Facts(
        _version(),
        summary,
        counts,
        activities.load(layout),
        coordination.coordinator(layout).taken(),
        repairs or _repairs(accounts.load(layout, host)),
        tuple(unreadable),
        clocks.now().wall,
    )


class Collector:
    """Gives metrics as ``prometheus_client`` has them, anew each time."""

    def __init__(self, gather: Gather) -> None:
        """Collect nothing yet.

        :param gather: reads what is known now
        """
        self._gather = gather

    def describe(self) -> Iterable[Any]:
        """Say nothing, as all that there is may change."""
        return ()

    def collect(self) -> Iterable[Any]:
        """Give all metrics."""
        core = client().metrics_core
        kinds = {
            metrics.Kind.COUNTER: core.CounterMetricFamily,
            metrics.Kind.GAUGE: core.GaugeMetricFamily,
        }
        for family in metrics.collect(self._gather()):
            made = kinds[family.kind](
                metrics.PREFIX + family.name, family.text, labels=family.labels
            )
            for labels, value in family.samples:
                made.add_metric(labels, value)
            yield made


def text(facts: metrics.Facts) -> bytes:
    """Give all metrics in the text format, as for node_exporter.

    :raises nova_imagecache.errors.Error: ``prometheus_client`` is missing
    """
    made: bytes = client().generate_latest(Collector(lambda: facts))
    return made


def write(path: str, facts: metrics.Facts) -> None:
    """Write all metrics to a file that others read, complete or not at all.

    The directory has to be there. What is not complete yet does not end in
    ``.prom``, so node_exporter does not read it.

    :raises nova_imagecache.errors.Error: ``prometheus_client`` is missing, or
        the directory is
    :raises OSError: it was not written
    """
    directory = os.path.dirname(path)
    data = text(facts)
    if not os.path.isdir(directory):
        raise errors.Error(f'there is no directory {directory}; make it')
    publish.publish(path, data, directory)
