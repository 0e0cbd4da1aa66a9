# SPDX-License-Identifier: Apache-2.0

"""What the tests of the command confirm share."""

import contextlib
import hashlib
import json
import os
import random
from typing import Any


from nova_imagecache.cache import states
from nova_imagecache.content import blockmap
from tests.support import base
from tests.support import nodes
from tests.support import scrubbing
from tests.support import shell

BLOCK = 16 * base.KIB
DOUBTS = ('suspect', 'rebaselined', 'differs', 'corrupt_without_digests')


class ConfirmTestCase(shell.ShellTestCase, scrubbing.ScrubTestCase):
    image = 'image'
    size = 4 * BLOCK - 99

    def setUp(self) -> None:
        super().setUp()
        self.patch(blockmap, 'BLOCK_SIZE', BLOCK)
        self.node.configure(checksum=True, remove_unused=False)
        self.data = random.Random(1).randbytes(self.size)
        self.name = self.node.add_image(self.image, data=self.data)
        self.path = self.node.base_path(self.name)
        self.sidecar = self.path + '.sha1'
        self.evidence = os.path.join(self.temporary, 'evidence')

    def read_twice(self) -> None:
        for _pass in range(2):
            self.node.run()

    def flip(self, block: int) -> None:
        nodes.flip_bit(self.path, block * BLOCK + 9)

    def suspect(self) -> None:
        # It was made before the boot in which it is first seen.
        self.node.clock.boottime = -base.HOUR
        self.read_twice()

    def rebaselined(self) -> None:
        self.read_twice()
        os.unlink(self.sidecar)
        os.truncate(self.node.layout.ledger(self.name), 50)
        self.read_twice()

    def differs(self) -> None:
        """Have a file in which one block is not what the earlier one had."""
        self.read_twice()
        nodes.write_after(self.path, self.data, self.sidecar)
        self.flip(2)
        self.read_twice()

    def corrupt_without_digests(self) -> None:
        """Have a file of which it is known that it was bad, and no more."""
        self.read_twice()
        self.flip(2)
        self.read_twice()
        os.unlink(self.sidecar)
        os.unlink(self.node.layout.ledger(self.name))
        self.read_twice()
        self.flip(2)
        self.read_twice()

    def sha1(self) -> str:
        with open(self.path, 'rb') as file:
            return hashlib.sha1(file.read()).hexdigest()

    def confirm(self, *argv: str) -> tuple[int, str, str]:
        return self.run_command('confirm', self.name, *argv)

    def found(self) -> tuple[int, dict[str, Any]]:
        """Say what list has of the file, and its exit code."""
        code, stdout, _stderr = self.run_command('list', '-f', 'json')
        (row,) = json.loads(stdout)
        return code, row

    def remembered(self) -> Any:
        return states.load(self.node.layout).files[self.name]

    def all_records(self) -> list[bytes]:
        """Read all that is known of the file, as it is on the disk."""
        found = []
        for path in (
            self.sidecar,
            self.node.layout.ledger(self.name),
            self.node.layout.state,
            self.path,
        ):
            with (
                contextlib.suppress(FileNotFoundError),
                open(path, 'rb') as file,
            ):
                found.append(file.read())
        return found

    def assert_beyond_doubt(self) -> None:
        code, row = self.found()
        # The clock of the program is another one, which keeps all files.
        self.assertNotEqual(3, code)
        self.assertEqual('good', row['checksum'])
        for word in ('suspect', 'rebaselined', 'differ', 'corrupt'):
            self.assertNotIn(word, row['reason'])
        ledger = self.ledger(self.name)
        self.assertEqual(
            (False, None, False, (), True, self.sha1(), self.sha1()),
            (
                ledger.suspect,
                ledger.rebaselined,
                ledger.differs,
                ledger.bad,
                ledger.proven,
                ledger.sha1,
                self.read_sidecar(),
            ),
        )
