# SPDX-License-Identifier: Apache-2.0

"""A small server for Prometheus, and for a person with a browser.

A process of its own, which reads records and nothing else.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import gzip
import http
import logging
import socket
import socketserver
import ssl
import sys
import threading
import time
from typing import Any
import urllib.parse
from wsgiref import simple_server

from nova_imagecache import errors
from nova_imagecache.outlets import exposition
from nova_imagecache.outlets import metrics
from nova_imagecache.outlets import pages

LOG = logging.getLogger(__name__)

#: Beyond those that exporters in the list of Prometheus' wiki have.
DEFAULT_PORT = 10140

# What says nothing for so long is left.
_IDLE_SECONDS = 10

# On storage that hangs a reading may; no others queue behind it.
_PATIENCE_SECONDS = 5

_HTML = ('Content-Type', 'text/html; charset=utf-8')
_TEXT = ('Content-Type', 'text/plain; charset=utf-8')
_SAFE = (
    (
        'Content-Security-Policy',
        "default-src 'none'; style-src 'unsafe-inline'",
    ),
    ('X-Content-Type-Options', 'nosniff'),
)


_Answer = tuple[http.HTTPStatus, Sequence[tuple[str, str]], bytes]


class Application:
    """Answers requests: the WSGI application."""

    def __init__(self, gather: exposition.Gather) -> None:
        """Read nothing yet.

        :param gather: reads what is known now
        :raises nova_imagecache.errors.Error: ``prometheus_client`` is missing
        """
        self._gather = gather
        self._turn = threading.Lock()
        self._takes_gzip = exposition.client().exposition.gzip_accepted
        self._encoder = exposition.Encoder()

    def _gather_in_turn(self) -> metrics.Facts:
        if not self._turn.acquire(timeout=_PATIENCE_SECONDS):
            raise errors.Locked('an earlier request still reads records')
        try:
            return self._gather()
        finally:
            self._turn.release()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Answer a request."""
        method = environ.get('REQUEST_METHOD')
        status, headers, body = self._answer(environ, method)
        start(
            f'{status.value} {status.phrase}',
            [*headers, *_SAFE, ('Content-Length', str(len(body)))],
        )
        return [] if method == 'HEAD' else [body]

    def _answer(self, environ: dict[str, Any], method: Any) -> _Answer:
        path = environ.get('PATH_INFO') or '/'
        if method not in ('GET', 'HEAD'):
            return _plain(http.HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            if path == '/metrics':
                return self._answer_metrics(environ)
            if path == '/':
                page = pages.page(self._gather_in_turn(), time.time())
                return http.HTTPStatus.OK, [_HTML], page.encode()
        except errors.NotNow as error:
            # Whoever asked hears of it, and asks again.
            LOG.info('Not answered: %s', error)
            return _plain(http.HTTPStatus.SERVICE_UNAVAILABLE)
        return _plain(http.HTTPStatus.NOT_FOUND)

    def _answer_metrics(self, environ: dict[str, Any]) -> _Answer:
        query = urllib.parse.parse_qs(environ.get('QUERY_STRING', ''))
        body, content_type = self._encoder.encode(
            self._gather_in_turn(),
            environ.get('HTTP_ACCEPT', ''),
            query.get('name[]', ()),
        )
        headers = [('Content-Type', content_type)]
        if self._takes_gzip(environ.get('HTTP_ACCEPT_ENCODING', '')):
            # Little is gained by more, and it takes as long as all the rest.
            body = gzip.compress(body, compresslevel=1)
            headers.append(('Content-Encoding', 'gzip'))
        return http.HTTPStatus.OK, headers, body


def _plain(status: http.HTTPStatus) -> _Answer:
    line = f'{status.value} {status.phrase}'
    return status, [_TEXT], line.encode() + b'\n'


class _Handler(simple_server.WSGIRequestHandler):
    """Answers one client, and waits for none forever."""

    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Log no request."""


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    """Answers many at a time."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(
        self,
        application: Application,
        address: tuple[str, int],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen.

        :param address: an address or a name, and the port; 0 for any
        :param tls: encrypts
        :raises OSError: it is taken, or not ours
        """
        family, *_rest = socket.getaddrinfo(
            *address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        self._tls = tls
        super().__init__(address, _Handler)
        self.set_app(application)

    def server_bind(self) -> None:
        """Bind, and do not ask a name server who we are."""
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a client; the handshake is for its own thread."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave a client that has gone, or does not speak TLS."""
        LOG.debug('A request was not answered: %r', sys.exception())


def tls(certificate: str, key: str) -> ssl.SSLContext:
    """Prepare to encrypt.

    :param certificate: path of a file in PEM
    :param key: likewise
    :raises nova_imagecache.errors.Error: they are of no use
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise errors.Error(
            f'{certificate} and {key} are no certificate and its key: {error}'
        ) from None
    return context


@contextlib.contextmanager
def served(server: Server) -> Any:
    """Answer requests for a while."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
