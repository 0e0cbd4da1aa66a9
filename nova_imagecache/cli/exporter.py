# SPDX-License-Identifier: Apache-2.0

"""The command exporter."""

import argparse
import functools
import signal

from nova_imagecache.cache import layouts
from nova_imagecache.cli import measuring
from nova_imagecache import errors
from nova_imagecache.outlets import exporter
from nova_imagecache.outlets import exposition
from nova_imagecache.outlets import summaries

_END = frozenset({signal.SIGTERM, signal.SIGINT})


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 2**16:
        raise ValueError(text)
    return port


class Exporter(measuring.Measuring):
    """Serve metrics to Prometheus, and a page to browsers.

    At /metrics and at /, until it gets SIGTERM. Only records are read: no
    disk, and no base file. It takes prometheus_client (pip install
    nova-imagecache[metrics]).
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--host',
            default='127.0.0.1',
            help='address to listen at (default: %(default)s); whoever can '
            'reach it can read which images and guests there are',
        )
        parser.add_argument(
            '--port',
            type=_port,
            default=exporter.DEFAULT_PORT,
            help='port to listen at (default: %(default)s); 0 for any',
        )
        parser.add_argument(
            '--certfile',
            metavar='PEM',
            help='serve by TLS, with this certificate',
        )
        parser.add_argument(
            '--keyfile', metavar='PEM', help='and with this key'
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Serve until a signal comes."""
        certificate, key = parsed_args.certfile, parsed_args.keyfile
        if bool(certificate) != bool(key):
            raise errors.Error('--certfile and --keyfile go together')
        tls = exporter.tls(certificate, key) if certificate else None
        gather = functools.partial(
            exposition.gather,
            layouts.Layout.of(self.settings),
            self.settings.host,
            reader=summaries.Reader(),
        )
        application = exporter.Application(gather)
        address = parsed_args.host, parsed_args.port
        try:
            server = exporter.Server(application, address, tls)
        except OSError as error:
            raise errors.Error(
                f'cannot listen at {parsed_args.host} port '
                f'{parsed_args.port}: {error.strerror}; choose others with '
                '--host and --port'
            ) from None
        # Before there are threads, which would get them otherwise.
        signal.pthread_sigmask(signal.SIG_BLOCK, _END)
        with exporter.served(server):
            scheme = 'https' if tls else 'http'
            host = parsed_args.host
            host = f'[{host}]' if ':' in host else host
            self.app.stdout.write(
                f'Serving {scheme}://{host}:{server.server_port}/metrics\n'
            )
            self.app.stdout.flush()
            signal.sigwait(_END)
