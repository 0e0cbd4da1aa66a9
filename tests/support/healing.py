# SPDX-License-Identifier: Apache-2.0

"""What the tests of repairs share."""

import json
import os
import random
from typing import Any

from nova_imagecache.content import blockmap
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import repair
from nova_imagecache.heal import sources
from tests.support import base
from tests.support import nodes
from tests.support import scrubbing
from tests.support import shell

BLOCK = 64 * base.KIB

Result = outcomes.Result


class HealTestCase(shell.ShellTestCase, scrubbing.ScrubTestCase):
    """A node with one base file that was read well.

    Its last page is short, and one of its blocks is zeros.
    """

    #: Whether the node is where the temporary files are.
    begins_at_once = True
    #: What the base file is made from.
    image = 'image'
    #: What the base file begins with.
    boot_sector = b''

    def setUp(self) -> None:
        super().setUp()
        self.patch(blockmap, 'BLOCK_SIZE', BLOCK)
        if self.begins_at_once:
            self.begin()

    def begin(self) -> None:
        self.node.configure(checksum=True, remove_unused=False)
        self.data = (
            random.Random(1).randbytes(4 * BLOCK)
            + bytes(BLOCK)
            + random.Random(2).randbytes(BLOCK - 99)
        )
        self.data = self.boot_sector + self.data[len(self.boot_sector) :]
        self.name = self.node.add_image(self.image, data=self.data)
        self.target = self.node.base_path(self.name)
        self.sidecar = self.target + '.sha1'
        self.copy = os.path.join(self.temporary, 'copy')
        with open(self.copy, 'wb') as file:
            file.write(self.data)
        self.learn()

    def learn(self) -> None:
        for _pass in range(2):
            self.node.run()

    def flip(self, *blocks: int, at: int = 9) -> None:
        for block in blocks:
            nodes.flip_bit(self.target, block * BLOCK + at)

    def damage(self, *blocks: int, at: int = 9) -> None:
        """Damage blocks, and have that be found."""
        self.flip(*blocks, at=at)
        self.drop()
        self.node.run()

    def drop(self) -> None:
        """Have nothing of the file be in the page cache."""
        fd = os.open(self.target, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)

    def content(self) -> bytes:
        with open(self.target, 'rb') as file:
            return file.read()

    def identity(self) -> tuple[Any, ...]:
        """Give what a repair leaves as it is."""
        status = os.stat(self.target)
        return (
            status.st_ino, status.st_uid, status.st_gid, status.st_mode,
            status.st_size, status.st_mtime_ns, status.st_nlink,
        )  # fmt: skip

    def assert_healed(self) -> None:
        self.assertTrue(self.data == self.content(), 'it is not as it was')
        self.assertEqual({}, self.bad(self.name))
        self.assertIs(
            scrubbing.Verdict.GOOD, self.known(self.name).finding.verdict
        )

    def heal(self, *given: sources.Source, **means: Any) -> outcomes.Outcome:
        return repair.repair(
            self.file(self.name), given, repair.Means(**means)
        )

    def repair(
        self, *argv: str
    ) -> tuple[int, list[dict[str, Any]], dict[str, Any], str]:
        """Run the command; give code, blocks, summary and errors."""
        code, stdout, stderr = self.run_command(
            'repair', self.name, '--progress', 'json', *argv
        )
        rows = [json.loads(line) for line in stdout.splitlines()]
        blocks = [row for row in rows if 'result' in row]
        summary = [row['summary'] for row in rows if 'summary' in row]
        return code, blocks, summary[0] if summary else {}, stderr


class Given:
    """A source that gives what it is told to."""

    fetched = 0
    cryptographic = False

    def __init__(self, data: bytes, name: str = 'given') -> None:
        self.name = name
        self.data = data
        self.asked: list[int] = []

    def read(self, base: Any, wanted: Any) -> Any:
        for each in wanted:
            self.asked.append(each.start)
            data = self.data[each.start : each.end]
            yield sources.Piece(each, data, 'nowhere')
