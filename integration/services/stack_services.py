# SPDX-License-Identifier: Apache-2.0

"""What stands in for Keystone and Neutron."""

from collections.abc import Callable
from collections.abc import Iterable
import json
from typing import Any

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]

_IDENTITY = {
    'HTTP_X_IDENTITY_STATUS': 'Confirmed',
    'HTTP_X_USER_ID': '11111111111111111111111111111111',
    'HTTP_X_PROJECT_ID': '22222222222222222222222222222222',
    'HTTP_X_ROLES': 'admin,manager,member,reader',
}


def identity_filter(
    _global_conf: Any, **_conf: str
) -> Callable[[Application], Application]:
    """Let everybody be the administrator; in the place of authtoken."""

    def wrap(application: Application) -> Application:
        def identified(environ: Environ, start: Any) -> Iterable[bytes]:
            return application(environ | _IDENTITY, start)

        return identified

    return wrap


def network(environ: Environ, start: Any) -> Iterable[bytes]:
    """Be a Neutron that has nothing."""
    collection = environ['PATH_INFO'].rstrip('/').rpartition('/')[2]
    start('200 OK', [('Content-Type', 'application/json')])
    return [json.dumps({collection: []}).encode()]
