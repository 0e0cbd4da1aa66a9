# SPDX-License-Identifier: Apache-2.0

"""Metrics in the formats of Prometheus, by ``prometheus_client``.

That is an extra: it is imported only when somebody wants metrics.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
import functools
import importlib
import importlib.metadata
from typing import Any

from nova_imagecache.cache import coordination
from nova_imagecache.cache import layouts
from nova_imagecache.cache import tallies
from nova_imagecache import clocks
from nova_imagecache.content import incidents
from nova_imagecache import errors
from nova_imagecache.heal import accounts
from nova_imagecache.heal import outcomes
from nova_imagecache.outlets import families
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import since
from nova_imagecache.outlets import summaries
from nova_imagecache.outlets import totals
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities

Gather = Callable[[], metrics.Facts]
Names = Collection[str]

# Of OpenMetrics.
_END = b'# EOF\n'


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
        {
            (source, result): size
            for source, sizes in account.fetched.items()
            for result, size in sizes.items()
        },
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
    known: tuple[incidents.Incident, ...] = ()
    try:
        summary = reader.load(layout, host)
    except (errors.Error, OSError) as error:
        path = summaries.path_of(layout, host)
        unreadable.append(f'{path}: {errors.why(error)}')
    try:
        known = reader.load_incidents(layout).incidents
    except (errors.Error, OSError) as error:
        unreadable.append(f'{layout.incidents}: {errors.why(error)}')
    else:
        summary = summary and since.with_incidents(summary, known)
    try:
        counts = tallies.load(layout, host)
    except OSError as error:
        unreadable.append(f'{layout.tallies}: {errors.why(error)}')
    return metrics.Facts(
        _version(),
        summary,
        counts,
        activities.load(layout),
        coordination.coordinator(layout).taken(),
        repairs or _repairs(accounts.load(layout, host)),
        tuple(unreadable),
        clocks.now().wall,
        known,
    )


class Collector:
    """Gives metrics as ``prometheus_client`` has them, anew each time.

    But for those that have a line per base file.
    """

    def __init__(self, gather: Gather) -> None:
        """Collect nothing yet.

        :param gather: reads what is known now
        """
        self._gather = gather

    def describe(self) -> Iterable[Any]:
        """Give all metrics that there may be, without their values."""
        then = clocks.Instant(0.0, 0.0, '')
        nothing = totals.summarised(reports.Report(''), '', then, then, {}, 1)
        return self._made(metrics.collect(metrics.Facts('', nothing)))

    def collect(self) -> Iterable[Any]:
        """Give all metrics."""
        return self._made(metrics.collect(self._gather()))

    @staticmethod
    def _made(told: Iterable[families.Family]) -> Iterable[Any]:
        core = client().metrics_core
        kinds = {
            families.Kind.COUNTER: core.CounterMetricFamily,
            families.Kind.GAUGE: core.GaugeMetricFamily,
        }
        for family in told:
            made = kinds[family.kind](
                metrics.PREFIX + family.name, family.text, labels=family.labels
            )
            for labels, value in family.samples:
                made.add_metric(labels, value)
            yield made


class Encoder:
    """Gives metrics in a format that the asker takes.

    What has a line per base file is made here and kept for as long as it is
    the same: ``prometheus_client`` takes 100 ms for 10,000 lines.
    """

    def __init__(self) -> None:
        """Make nothing yet."""
        self._images: object = ()
        self._lines = b''

    def encode(
        self, facts: metrics.Facts, accept: str = '', wanted: Names = ()
    ) -> tuple[bytes, str]:
        """Give metrics, and what to call their format.

        :param accept: the formats that are taken, as in HTTP
        :param wanted: names of metrics; all, where there are none
        :raises nova_imagecache.errors.Error: ``prometheus_client`` is missing
        """
        library = client()
        encode, content_type = library.exposition.choose_encoder(accept)
        registry = library.CollectorRegistry()
        registry.register(Collector(lambda: facts))
        if wanted:
            registry = registry.restricted_registry(wanted)
        data: bytes = encode(registry)
        lines = self._lines_of(facts, wanted)
        end = _END if data.endswith(_END) else b''
        return data.removesuffix(end) + lines + end, content_type

    def _lines_of(self, facts: metrics.Facts, wanted: Names) -> bytes:
        images = facts.summary.images if facts.summary else ()
        # They stay the same object as long as their record does.
        if images is not self._images:
            family = metrics.of_each_file(facts)
            self._lines = b'' if family is None else _encoded(family)
            self._images = images
        if wanted and metrics.PREFIX + metrics.EACH_FILE not in wanted:
            return b''
        return self._lines


def _escaped(text: str) -> str:
    """Give the value of a label as it is between quotes."""
    text = text.replace('\\', r'\\').replace('\n', r'\n')
    return text.replace('"', r'\"')


def _encoded(family: families.Family) -> bytes:
    """Write a gauge as both text formats have it."""
    name = metrics.PREFIX + family.name
    lines = [f'# HELP {name} {family.text}\n# TYPE {name} {family.kind}\n']
    for labels, value in family.samples:
        pairs = ','.join(
            f'{key}="{_escaped(text)}"'
            for key, text in zip(family.labels, labels, strict=True)
        )
        lines.append(f'{name}{{{pairs}}} {value}\n')
    return ''.join(lines).encode()


def text(facts: metrics.Facts) -> bytes:
    """Give all metrics in the text format, as for node_exporter.

    :raises nova_imagecache.errors.Error: ``prometheus_client`` is missing
    """
    return Encoder().encode(facts)[0]
