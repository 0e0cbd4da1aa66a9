# SPDX-License-Identifier: Apache-2.0

"""The alert rules and dashboards that come with the package."""

from collections.abc import Iterator
import glob
import json
import os
import re
from typing import Any

import yaml

ETC = os.path.join(os.path.dirname(__file__), '../../etc')
RULES = os.path.join(ETC, 'prometheus/nova-imagecache-rules.yml')
TESTS = os.path.join(ETC, 'prometheus/nova-imagecache-rules.test.yml')
DASHBOARDS = sorted(glob.glob(os.path.join(ETC, 'grafana/*.json')))

_METRIC = re.compile(r'\bnova_imagecache_\w+')


def load(path: str) -> Any:
    """Read YAML or JSON."""
    with open(path, encoding='utf-8') as file:
        return yaml.safe_load(file)


def rules() -> list[dict[str, Any]]:
    """Give all alert rules."""
    (group,) = load(RULES)['groups']
    found: list[dict[str, Any]] = group['rules']
    return found


def metrics_in(expression: str) -> set[str]:
    """Name the metrics of ours in an expression."""
    return set(_METRIC.findall(expression))


def expressions(dashboard: str) -> Iterator[tuple[str, str]]:
    """Give each expression of a dashboard, and the title of its panel."""
    with open(dashboard, encoding='utf-8') as file:
        panels = json.load(file)['panels']
    for panel in panels:
        for target in panel.get('targets', ()):
            yield panel['title'], target['expr']
