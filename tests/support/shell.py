# SPDX-License-Identifier: Apache-2.0

"""The program in this process, on a node."""

import json
import os
from typing import Any

import fixtures

from nova_imagecache.cli import app
from tests.support import base
from tests.support import nodes

# Of a file that was read, and of one in a list.
READ_KEYS = [
    'name', 'kind', 'size', 'allocated', 'users', 'age_seconds', 'checksum',
    'action', 'reason',
]  # fmt: skip
KEYS = [
    *READ_KEYS, 'readers', 'vetoes', 'trust', 'last_copy', 'image',
    'image_name',
]  # fmt: skip


class ShellTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node.clock = base.FakeClock.of_this_machine()
        self.nova_conf = os.path.join(self.temporary, 'nova.conf')
        self.write_conf(checksum_base_images='true')

    def write_conf(self, **values: Any) -> None:
        with open(self.nova_conf, 'w') as file:
            file.write(
                '[DEFAULT]\n'
                f'instances_path = {self.node.layout.instances}\n'
                '[image_cache]\nchecksum_interval_seconds = 0\n'
                # No libvirt that knows of what tests make.
                'witnesses = overlays,locks\n'
            )
            for name, value in values.items():
                file.write(f'{name} = {value}\n')

    def shell(self, *argv: str) -> tuple[int, str, str]:
        """Run the program in this process; give code, output and errors."""
        stdout = self.useFixture(fixtures.StringStream('stdout')).stream
        stderr = self.useFixture(fixtures.StringStream('stderr')).stream
        with (
            fixtures.MonkeyPatch('sys.stdout', stdout),
            fixtures.MonkeyPatch('sys.stderr', stderr),
        ):
            try:
                code = app.main(list(argv))
            except SystemExit as error:
                code = int(error.code or 0)
        texts = []
        for stream in (stdout, stderr):
            stream.seek(0)
            texts.append(stream.read())
        return code, texts[0], texts[1]

    def run_command(self, *argv: str) -> tuple[int, str, str]:
        return self.shell('--config-file', self.nova_conf, *argv)

    def rows(self, *argv: str, code: int = 0) -> list[dict[str, Any]]:
        got, stdout, stderr = self.run_command(*argv, '-f', 'json')
        self.assertEqual(code, got, stderr)
        rows: list[dict[str, Any]] = json.loads(stdout)
        return rows
