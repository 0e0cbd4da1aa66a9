# SPDX-License-Identifier: Apache-2.0

"""What stands in for Neutron."""

from collections.abc import Iterable
import json
from typing import Any


def network(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    """Be a Neutron that has nothing."""
    collection = environ['PATH_INFO'].rstrip('/').rpartition('/')[2]
    start('200 OK', [('Content-Type', 'application/json')])
    return [json.dumps({collection: []}).encode()]
