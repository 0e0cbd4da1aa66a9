# SPDX-License-Identifier: Apache-2.0

"""Base files that another user owns, on a host with a umask of 077."""

import errno
import os

from nova_imagecache import host
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from nova_imagecache.scrub import sources
from nova_imagecache.witnesses import panel
from tests.support import nodes
from tests.support import scrubbing

Verdict = scrubbing.Verdict


class LentReadingTest(scrubbing.OneFileTestCase):
    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('only root can have files of two users')
        self.node.configure(checksum=True)
        os.chmod(self.temporary, 0o755)
        for directory, _directories, files in os.walk(self.temporary):
            for name in ['.', *files]:
                path = os.path.join(directory, name)
                os.chown(path, nodes.NOBODY, nodes.NOBODY)
        # As libvirt gives it to QEMU's user.
        os.chown(self.path, 0, 0)
        os.chmod(self.path, 0o600)
        self.asked: list[int] = []

    def read_as_root(self, path: str, offset: int, length: int) -> bytes:
        self.asked.append(offset)
        return nodes.read_as_root(path, offset, length)

    def pass_(self, lends: bool = True) -> reports.Report:
        lent = host.Host(read_as_root=self.read_as_root if lends else None)
        with nodes.unprivileged():
            return pipeline.Pass(
                self.node.settings,
                clock=self.node.clock,
                inline=True,
                assembly=panel.Assembly(lent),
            ).run()

    def verdict(self) -> Verdict:
        return self.file_of(self.pass_(), self.name).checksum

    def test_the_host_reads_what_we_may_not(self) -> None:
        self.assertIs(Verdict.UNKNOWN, self.verdict())
        self.assertEqual(self.sha1(), self.read_sidecar())
        self.assertIs(Verdict.GOOD, self.verdict())
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        self.assertEqual({3: scrubbing.CORRUPT}, self.bad_blocks())

    def test_the_host_reads_no_more_at_once_than_it_can_make_way_for(
        self,
    ) -> None:
        self.patch(sources, '_LENT_PIECE', 4096)
        real, lengths = self.read_as_root, []

        def read_as_root(path: str, offset: int, length: int) -> bytes:
            # A header is at the beginning.
            if offset:
                lengths.append(length)
            return real(path, offset, length)

        self.patch(self, 'read_as_root', read_as_root)
        self.assertIs(Verdict.UNKNOWN, self.verdict())
        self.assertEqual(4096, max(lengths))
        self.assertEqual(self.sha1(), self.read_sidecar())

    def test_a_block_that_the_host_cannot_read_costs_that_block_alone(
        self,
    ) -> None:
        self.verdict()
        real = self.read_as_root

        # Mocked: a disk that fails in just that place.
        def read_as_root(path: str, offset: int, length: int) -> bytes:
            if offset // scrubbing.BLOCK == 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(path, offset, length)

        self.patch(self, 'read_as_root', read_as_root)
        self.flip(5)
        self.assertIs(Verdict.CORRUPT, self.verdict())
        self.assertEqual(
            {2: scrubbing.UNREADABLE, 5: scrubbing.CORRUPT}, self.bad_blocks()
        )

    def test_a_host_that_fails_is_told_and_no_fault_of_the_file(self) -> None:
        self.verdict()

        def read_as_root(path: str, offset: int, length: int) -> bytes:
            raise RuntimeError('no daemon')

        self.patch(self, 'read_as_root', read_as_root)
        file = self.file_of(self.pass_(), self.name)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        self.assertIn('no daemon', file.reason)
        self.assertIsNone(self.ledger(self.name).unreadable)

    def test_one_that_is_replaced_meanwhile_gets_no_verdict(self) -> None:
        self.verdict()
        real = self.read_as_root

        def read_as_root(path: str, offset: int, length: int) -> bytes:
            if len(self.asked) == 3:
                os.seteuid(0)
                os.rename(path, f'{self.temporary}/gone')
                self.node.add_base(self.name, data=b'other bytes')
                os.seteuid(nodes.NOBODY)
            return real(path, offset, length)

        self.asked.clear()
        self.patch(self, 'read_as_root', read_as_root)
        self.assertIs(Verdict.UNKNOWN, self.verdict())

    def test_without_a_host_that_is_said_with_what_to_do(self) -> None:
        report = self.pass_(lends=False)
        file = self.file_of(report, self.name)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        self.assertIn('let the owner of instances_path read it', file.reason)
        self.assertIn('not verified', ' '.join(report.problems))
        self.assertEqual([], self.asked)
