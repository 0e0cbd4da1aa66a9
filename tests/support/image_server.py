# SPDX-License-Identifier: Apache-2.0

"""An image service that fails in every way, behind a real client."""

from collections.abc import Callable
import contextlib
import dataclasses
import hashlib
from http import server
import json
import re
import socket
import threading
from typing import Any

import fixtures
from oslo_config import cfg

from nova_imagecache.heal.sources import clients
from nova_imagecache.heal.sources import image_api

ID = '6b5e1d4c-9f5a-4b7e-8f83-5d1f0f6c1a2b'

_RANGE = re.compile(r'bytes=([0-9]+)-([0-9]+)')


@dataclasses.dataclass
class Stored:
    """An image in there, and what goes wrong with it.

    :ivar path: of its data
    :ivar fault: answers a request for data in the place of the server
    :ivar paths: of the data in stores that have other data
    """

    path: str
    disk_format: str = 'raw'
    status: str = 'active'
    stores: str = ''
    os_hash_value: str | None = None
    size: int | None = None
    record_code: int = 200
    fault: 'Callable[[Handler], None] | None' = None
    rangeless: tuple[str, ...] = ()
    paths: dict[str, str] = dataclasses.field(default_factory=dict)
    name: str = ''


class Handler(server.BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = 'HTTP/1.1'
    images: 'ImageServer'

    def log_message(self, *_arguments: Any) -> None:
        pass

    def reply(
        self, code: int, body: bytes = b'', **headers: str | int
    ) -> None:
        self.send_response(code)
        for name, value in {'Content-Length': len(body), **headers}.items():
            self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        self.wfile.write(body)

    def reply_json(self, code: int, value: Any, **headers: str) -> None:
        self.reply(
            code,
            json.dumps(value).encode(),
            Content_Type='application/json',
            **headers,
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.images.logins.append(json.loads(body))
        if self.images.login_code != 201:
            self.reply_json(self.images.login_code, {})
            return
        catalog = [
            {
                'type': 'image',
                'name': 'glance',
                'id': 'image',
                'endpoints': [
                    {
                        'id': 'one',
                        'interface': interface,
                        'region': 'one',
                        'region_id': 'one',
                        'url': self.images.url + path,
                    }
                    for interface, path in (
                        ('internal', ''),
                        ('public', '/elsewhere'),
                    )
                ],
            }
        ]
        token = {
            'methods': ['password'],
            'expires_at': '2099-01-01T00:00:00.000000Z',
            'issued_at': '2026-01-01T00:00:00.000000Z',
            'user': {'id': 'u', 'name': 'nova', 'domain': {'id': 'default'}},
            'project': {'id': 'p', 'name': 's', 'domain': {'id': 'default'}},
            'catalog': catalog,
            'roles': [
                {'id': role, 'name': role} for role in self.images.roles
            ],
        }
        self.reply_json(201, {'token': token}, X_Subject_Token='secret')

    def do_GET(self) -> None:
        self.images.requests.append((self.path, self.headers.get('Range')))
        path, _mark, query = self.path.partition('?')
        parts = path.strip('/').split('/')
        if parts == ['']:
            version = {
                'id': 'v2.15',
                'status': 'CURRENT',
                'links': [{'rel': 'self', 'href': f'{self.images.url}/v2/'}],
            }
            self.reply_json(300, {'versions': [version]})
        elif parts[0] == 'v3':
            self.reply_json(200, {'version': {'id': 'v3.14', 'status':
                'stable', 'links': [{'rel': 'self', 'href':
                f'{self.images.url}/v3'}]}})  # fmt: skip
        elif parts == ['v2', 'images'] and self.images.lists:
            self.reply_json(200, {'images': self.images.listed})
        elif parts[:2] != ['v2', 'images'] or parts[2:3] != [ID]:
            self.reply_json(404, {})
        elif len(parts) == 3:
            self._record()
        else:
            self._data(query)

    def _record(self) -> None:
        stored = self.images.stored
        with open(stored.path, 'rb') as file:
            data = file.read()
        digest = stored.os_hash_value or hashlib.sha512(data).hexdigest()
        self.reply_json(
            stored.record_code,
            {
                'id': ID,
                'status': stored.status,
                'disk_format': stored.disk_format,
                'size': len(data) if stored.size is None else stored.size,
                'os_hash_algo': 'sha512',
                'os_hash_value': digest,
                **({'stores': stored.stores} if stored.stores else {}),
                **({'name': stored.name} if stored.name else {}),
            },
        )

    def _data(self, query: str) -> None:
        stored = self.images.stored
        self.images.token = self.headers.get('X-Auth-Token')
        if stored.fault is not None:
            stored.fault(self)
            return
        store = query.removeprefix('prefer=') or stored.stores.split(',')[0]
        with open(stored.paths.get(store, stored.path), 'rb') as file:
            data = file.read()
        match = _RANGE.fullmatch(self.headers.get('Range') or '')
        if match is None:
            self.send_body(200, data)
        elif store in stored.rangeless:
            self.reply(400, b'no')
        else:
            first, last = map(int, match.groups())
            if first >= len(data):
                self.reply(416)
                return
            part = data[first : last + 1]
            self.send_body(
                206,
                part,
                Content_Range=f'bytes {first}-{first + len(part) - 1}/'
                f'{len(data)}',
            )

    def send_body(self, code: int, data: bytes, **headers: str | int) -> None:
        self.images.sent += len(data)
        with contextlib.suppress(OSError):
            self.reply(code, data, **headers)

    def cut_off(self) -> None:
        """Send half of what is announced, and hang up."""
        match = _RANGE.fullmatch(self.headers.get('Range') or '')
        first, last = map(int, match.groups()) if match else (0, 99)
        length = last - first + 1
        self.send_response(206 if match else 200)
        if match:
            size = len(open(self.images.stored.path, 'rb').read())
            self.send_header('Content-Range', f'bytes {first}-{last}/{size}')
            self.send_header('Content-Length', str(length))
        else:
            self.send_header(
                'Content-Length',
                str(len(open(self.images.stored.path, 'rb').read())),
            )
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(bytes(length // 2))
        self.close_connection = True


class ImageServer(fixtures.Fixture):
    """The server, with one image.

    :ivar requests: paths and ranges that were asked for
    :ivar roles: of who logs in
    :ivar lists: whether it gives a list of images
    :ivar listed: what is in there
    :ivar sent: bytes of data that were sent
    """

    def __init__(
        self, stored: Stored, handler: type[Handler] = Handler
    ) -> None:
        super().__init__()
        self._handler = handler
        self.stored = stored
        self.requests: list[tuple[str, str | None]] = []
        self.logins: list[Any] = []
        self.login_code = 201
        self.roles = ['admin']
        self.lists = True
        self.listed: list[dict[str, str]] = []
        self.token: str | None = None
        self.sent = 0

    def _setUp(self) -> None:
        handler = type('Bound', (self._handler,), {'images': self})
        http = server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
        http.daemon_threads = True
        self.url = f'http://127.0.0.1:{http.server_address[1]}'
        # It looks every so many seconds whether it is to end.
        thread = threading.Thread(
            target=http.serve_forever, args=(0.01,), daemon=True
        )
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(http.server_close)
        self.addCleanup(http.shutdown)

    @property
    def asked(self) -> list[str | None]:
        """The ranges of data that were asked for; None for all of it."""
        return [wanted for path, wanted in self.requests if '/file' in path]

    def client(self) -> image_api.ImageClient:
        """Make a real client, as from a nova.conf without Keystone."""
        return clients.from_options(
            make_conf(
                '[service_user]\nauth_type = none\n'
                f'[glance]\nendpoint_override = {self.url}\n'
            )
        )()


def make_conf(text: str) -> cfg.ConfigOpts:
    """Read a nova.conf."""
    directory = fixtures.TempDir()
    with directory:
        path = f'{directory.path}/nova.conf'
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        conf = cfg.ConfigOpts()
        conf([f'--config-file={path}'], default_config_dirs=[])
    return conf


def unused_port() -> int:
    """Give a port at which nobody listens."""
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return int(found.getsockname()[1])
