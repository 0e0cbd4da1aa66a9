# SPDX-License-Identifier: Apache-2.0

"""The exporter as a process of its own, and what it is asked."""

from collections.abc import Sequence
import os
import signal
import ssl
import subprocess
import sys
import urllib.request

import fixtures

from tests.support import processes


class Exporter(fixtures.Fixture):
    """An exporter on any free port.

    :ivar url: where its metrics are
    """

    def __init__(
        self, instances_path: str, arguments: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self._command = [
            sys.executable, '-m', 'nova_imagecache',
            '--instances-path', instances_path, 'exporter', '--port', '0',
            *arguments,
        ]  # fmt: skip

    def _setUp(self) -> None:
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(self.end)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = line.removeprefix('Serving ').rstrip()

    @property
    def target(self) -> str:
        """Give the address and port."""
        return self.url.partition('://')[2].partition('/')[0]

    def end(self) -> int:
        """End it; give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=processes.PATIENCE_SECONDS)
        return self.process.returncode


def fetch(url: str, cafile: str | None = None) -> str:
    """Get a page.

    :raises OSError: there is no such page, or nobody there
    """
    context = ssl.create_default_context(cafile=cafile) if cafile else None
    with urllib.request.urlopen(
        url, timeout=processes.PATIENCE_SECONDS, context=context
    ) as answer:
        text: str = answer.read().decode()
    return text


def certificate(directory: str) -> tuple[str, str]:
    """Make a certificate of this machine; give its path, and its key's."""
    paths = os.path.join(directory, 'cert'), os.path.join(directory, 'key')
    processes.run(
        'openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
        'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1',
        '-out', paths[0], '-keyout', paths[1],
    )  # fmt: skip
    return paths
