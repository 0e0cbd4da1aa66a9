# SPDX-License-Identifier: Apache-2.0

"""Whose verdict is it? One file that is seen in two ways, and two that look
like one.

What a host sees of a file (inode, birth time, generation) differs between a
server and its client, and changes with a remount.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import os
from typing import Any

import ddt

from nova_imagecache.cache import identity
from nova_imagecache.cache import states
from nova_imagecache.content import knowledge
from nova_imagecache.scrub import readers
from tests.support import base
from tests.support import mounts
from tests.support import nodes
from tests.support import scrubbing

CORRUPT = scrubbing.CORRUPT
Verdict = scrubbing.Verdict
WEEK = 7 * base.DAY


class IdentityTestCase(mounts.MountingTestCase, scrubbing.OneFileTestCase):
    def note_files_read(self) -> list[str]:
        """Note the name of each base file that is read from now on."""
        real = readers.Reader.__init__
        names: list[str] = []

        def init(reader: Any, fd: int, *args: Any, **kwargs: Any) -> None:
            path = os.readlink(f'/proc/self/fd/{fd}')
            names.append(os.path.basename(path))
            real(reader, fd, *args, **kwargs)

        self.patch(readers.Reader, '__init__', init)
        return names

    @contextlib.contextmanager
    def seen_as(
        self, change: Callable[[identity.Incarnation], identity.Incarnation]
    ) -> Iterator[None]:
        """Have files be seen in another way for a while."""
        real = identity._stat

        # Mocked: it takes a server that is not the same host, or a remount.
        def stat(buffer: bytes, generation: int | None) -> identity.Stat:
            seen = real(buffer, generation)
            changed = change(seen.incarnation)
            return dataclasses.replace(seen, incarnation=changed)

        with (
            base.patched(identity, '_stat', stat),
            base.patched(identity, '_generation', lambda fd: None),
        ):
            yield

    def without_birth_times(
        self, inode: int | None = None, shift: int = 0
    ) -> contextlib.AbstractContextManager[None]:
        """Have files be seen as a FUSE file system shows them.

        :param inode: the number of all files, as if each had that of the one
            before; None for those that they have
        :param shift: by how much the last mount has changed the numbers
        """
        return self.seen_as(
            lambda incarnation: dataclasses.replace(
                incarnation,
                inode=(incarnation.inode if inode is None else inode) + shift,
                born=None,
                generation=None,
            )
        )

    def record(self) -> bytes:
        with open(self.node.layout.ledger(self.name), 'rb') as file:
            return file.read()

    def digests(self) -> bytes:
        """Give the digests of blocks, as they are on the disk."""
        return self.record().partition(b'\n')[2]


class SharedTest(IdentityTestCase):
    """A server and a client, which sees no birth times, have one cache."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.node
        point = os.path.join(self.temporary, 'client')
        self.mount_without_birth_times(self.server.layout.instances, point)
        self.client = nodes.Node(point)
        self.client.clock = self.server.clock
        for node, host in ((self.server, 'server'), (self.client, 'client')):
            node.configure(
                checksum=True,
                checksum_interval=WEEK,
                remove_unused=False,
                host=host,
            )

    def key(self, node: nodes.Node) -> identity.Key:
        return identity.stat_of(node.base_path(self.name)).incarnation.key

    def verdict(self, node: nodes.Node) -> Verdict:
        """Make a pass, and say what it found."""
        return self.file_of(node.run(), self.name).checksum

    def verify(self, node: nodes.Node) -> Verdict:
        report = node.make_pass().verify_now([self.name])
        return self.file_of(report, self.name).checksum

    def be_verified_by(self, node: nodes.Node) -> None:
        self.verdict(node)
        self.verify(node)
        self.assertIs(Verdict.GOOD, self.verify(node))

    def test_they_see_different_things(self) -> None:
        self.assertIs(
            identity.Likeness.UNSURE,
            identity.compare(self.key(self.server), self.key(self.client)),
        )

    def test_neither_makes_the_other_read_again(self) -> None:
        for first, second in (
            (self.server, self.client),
            (self.client, self.server),
        ):
            self.be_verified_by(first)
            before = self.record()
            read = self.note_files_read()
            for _day in range(6):
                self.server.clock.advance(base.DAY)
                self.assertIs(Verdict.GOOD, self.verdict(second))
                self.assertIs(Verdict.GOOD, self.verdict(first))
            self.assertEqual([], read)
            self.assertEqual(before, self.record())

    def test_each_goes_on_with_what_the_other_has_learnt(self) -> None:
        self.be_verified_by(self.server)
        digests, sha1 = self.digests(), self.read_sidecar()
        for node in (self.client, self.server, self.client):
            self.assertIs(Verdict.GOOD, self.verify(node))
        self.assertEqual(
            (digests, sha1), (self.digests(), self.read_sidecar())
        )
        self.assertIsNone(self.ledger(self.name).rebaselined)

    def test_the_key_has_what_the_server_sees_when_the_client_has_read_it(
        self,
    ) -> None:
        self.be_verified_by(self.server)
        self.be_verified_by(self.client)
        self.assertEqual(self.key(self.server), self.ledger(self.name).key)
        sighting = states.load(self.server.layout).files[self.name]
        self.assertEqual(self.key(self.server), sighting.key)

    def test_damage_that_one_finds_the_other_knows(self) -> None:
        for finder, other in (
            (self.server, self.client),
            (self.client, self.server),
        ):
            self.be_verified_by(finder)
            self.flip(3)
            self.assertIs(Verdict.CORRUPT, self.verify(finder))
            read = self.note_files_read()
            report = other.make_pass().preview()
            self.assertIs(
                Verdict.CORRUPT, self.file_of(report, self.name).checksum
            )
            self.assertEqual([], read)
            self.assertIs(Verdict.CORRUPT, self.verify(other))
            self.assertEqual({3: CORRUPT}, self.bad_blocks())
            self.flip(3)
            self.assertIs(Verdict.GOOD, self.verify(finder))

    def test_damage_is_remembered_by_both_where_its_ledger_is_lost(
        self,
    ) -> None:
        self.be_verified_by(self.client)
        self.flip(3)
        self.verify(self.client)
        self.verdict(self.server)
        os.unlink(self.server.layout.ledger(self.name))
        for node in (self.server, self.client):
            report = node.make_pass().preview()
            self.assertIs(
                Verdict.CORRUPT, self.file_of(report, self.name).checksum
            )

    def test_a_file_that_the_server_replaces_is_another_to_the_client(
        self,
    ) -> None:
        """Which finds that out by reading, as all of it is other."""
        self.be_verified_by(self.client)
        sha1 = self.read_sidecar()
        nodes.write_after(self.path, bytes(reversed(self.data)), self.sidecar)
        self.assertIs(Verdict.DIFFERS, self.verify(self.client))
        self.assertIs(Verdict.DIFFERS, self.verify(self.server))
        self.assertEqual(sha1, self.read_sidecar())


class RemountTest(IdentityTestCase):
    """Inode numbers that are others after each mount, as of sshfs.

    Patched, as two programs of file servers are much to ask for this.
    """

    def settle(self) -> None:
        for _scrub in range(2):
            verdict = self.scrub_file()
        self.assertIs(Verdict.GOOD, verdict)

    def test_what_is_good_stays_so_unread(self) -> None:
        with self.without_birth_times():
            self.settle()
            before = self.record()
        reads = self.note_reads()
        with self.without_birth_times(shift=1000):
            known = self.known(self.name)
            self.assertIs(Verdict.GOOD, known.finding.verdict)
            self.assertFalse(known.question)
            self.assertEqual([], reads)
            self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(before.partition(b'\n')[2], self.digests())

    def test_what_is_corrupt_stays_so(self) -> None:
        with self.without_birth_times():
            self.settle()
            self.flip(3)
            self.scrub_file()
            sha1 = self.read_sidecar()
        for mount in range(1, 4):
            with self.without_birth_times(shift=1000 * mount):
                known = self.known(self.name)
                self.assertIs(Verdict.CORRUPT, known.finding.verdict)
                self.assertIs(Verdict.CORRUPT, self.scrub_file())
                self.assertEqual({3: CORRUPT}, self.bad_blocks())
        self.assertEqual(sha1, self.read_sidecar())

    def test_what_decays_meanwhile_is_corrupt_and_not_another(self) -> None:
        with self.without_birth_times():
            self.settle()
        self.flip(3)
        with self.without_birth_times(shift=1000):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())
            self.assertEqual({3: CORRUPT}, self.bad_blocks())

    def test_marks_stay(self) -> None:
        with self.without_birth_times():
            self.scrub_file(outlived=True)
        with self.without_birth_times(shift=1000):
            self.scrub_file()
            self.assertTrue(self.ledger(self.name).suspect)

    def test_an_interrupted_reading_goes_on(self) -> None:
        with self.without_birth_times():
            self.settle()
            self.scrub_file(**self.stop_after(4))
        self.go_on()
        reads = self.note_reads()
        with self.without_birth_times(shift=1000):
            self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(list(range(4, scrubbing.COUNT)), reads)


class InodeReuseTest(IdentityTestCase):
    """No birth times, and the next file has the inode of the last one."""

    def setUp(self) -> None:
        super().setUp()
        self.stack.enter_context(self.without_birth_times(inode=7))
        for _scrub in range(2):
            self.scrub_file()
        self.sha1_before, self.digests_before = (
            self.read_sidecar(),
            self.digests(),
        )

    def replace(self, data: bytes) -> None:
        """Do as stock Nova, which leaves the checksum and the ledger."""
        os.unlink(self.path)
        self.node.add_base(self.name, data=data)

    def test_another_image_of_the_same_size_is_not_called_corrupt(
        self,
    ) -> None:
        self.replace(bytes(reversed(self.data)))
        for _scrub in range(3):
            self.assertIs(Verdict.DIFFERS, self.scrub_file())
            self.assertIs(
                Verdict.DIFFERS, self.known(self.name).finding.verdict
            )
        self.assertEqual(self.sha1_before, self.read_sidecar())
        self.assertEqual(self.digests_before, self.digests())

    def test_another_form_of_it_is_a_new_baseline_that_is_noted(self) -> None:
        self.replace(bytes(reversed(self.data)) + bytes(5) + b'x')
        # It was read with nothing to expect, so not for a SHA-1.
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertEqual(self.sha1_before, self.read_sidecar())
        self.assertEqual(self.digests_before, self.digests())
        finding = self.scrub(self.name)
        self.assertIs(Verdict.UNKNOWN, finding.verdict)
        self.assertIn('made anew', finding.note)
        self.assertEqual(self.sha1(), self.read_sidecar())
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_the_same_image_is_good_and_nothing_is_learnt_anew(self) -> None:
        self.replace(self.data)
        self.assertIs(Verdict.GOOD, self.scrub_file())
        self.assertEqual(self.sha1_before, self.read_sidecar())
        self.assertEqual(self.digests_before, self.digests())

    def test_the_same_image_with_damage_is_corrupt(self) -> None:
        self.replace(self.data)
        self.flip(3)
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
        self.assertEqual({3: CORRUPT}, self.bad_blocks())


class OlderChecksumTest(IdentityTestCase):
    """A stored checksum that is older than the file beside it."""

    def put(self, digest: str) -> None:
        self.write_sidecar(digest)
        nodes.write_after(self.path, self.data, self.sidecar)

    def test_a_file_that_has_it_is_good_when_it_is_first_read(self) -> None:
        self.put(self.sha1())
        known = self.known(self.name)
        self.assertTrue(known.question)
        self.assertIs(Verdict.UNKNOWN, known.finding.verdict)
        self.assertEqual(
            knowledge.Finding(Verdict.GOOD), self.scrub(self.name)
        )
        self.assertEqual(self.sha1(), self.read_sidecar())
        self.assertIsNone(self.ledger(self.name).rebaselined)

    def test_a_file_that_has_not_differs_and_the_checksum_is_kept(
        self,
    ) -> None:
        self.put('f' * 40)
        for _scrub in range(3):
            finding = self.scrub(self.name)
            self.assertIs(Verdict.DIFFERS, finding.verdict)
            self.assertIn(self.sha1(), finding.note)
        self.assertEqual('f' * 40, self.read_sidecar())

    def test_it_is_not_compared_with_what_was_read_in_parts(self) -> None:
        self.put('f' * 40)
        self.scrub_file(**self.stop_after(4))
        self.go_on()
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        self.assertEqual('f' * 40, self.read_sidecar())
        self.assertIs(Verdict.DIFFERS, self.scrub_file())

    def test_of_a_swap_file_it_goes_when_it_does_not_agree(self) -> None:
        self.name = 'swap_64'
        self.path = self.node.base_path(self.name)
        self.sidecar = self.path + '.sha1'
        self.put('f' * 40)
        finding = self.scrub(self.name)
        self.assertIn('made anew', finding.note)
        self.assertEqual(self.sha1(), self.read_sidecar())


@ddt.ddt
class FetchedAnewTest(IdentityTestCase):
    """Unlinked by Nova, and fetched again with the same bytes."""

    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True, remove_unused=False)
        for _pass in range(3):
            report = self.node.run()
        file = self.file_of(report, self.name)
        self.assertIs(Verdict.GOOD, file.checksum)
        self.learnt = self.digests()

    def fetch(self) -> None:
        nodes.write_after(self.path, self.data, self.sidecar_or_base())

    def sidecar_or_base(self) -> str:
        return self.sidecar if os.path.exists(self.sidecar) else self.path

    def verdict(self) -> Verdict:
        file = self.file_of(self.node.run(), self.name)
        self.assertNotIn('rebaselined', file.reason)
        return file.checksum

    @ddt.data((), ('sidecar',), ('ledger',))
    def test_with_any_of_it_left_it_is_good_when_it_is_first_read(
        self, lost: tuple[str, ...]
    ) -> None:
        ledger = self.node.layout.ledger(self.name)
        for what in lost:
            os.unlink(ledger if what == 'ledger' else self.sidecar)
        self.fetch()
        # What a verdict is of has gone.
        self.assertIs(Verdict.UNKNOWN, self.known(self.name).finding.verdict)
        self.assertIs(Verdict.GOOD, self.verdict())
        self.assertEqual(self.sha1(), self.read_sidecar())
        self.assertEqual(self.learnt, self.digests())

    def test_with_none_of_it_left_it_is_a_new_file(self) -> None:
        for path in (self.sidecar, self.node.layout.ledger(self.name)):
            os.unlink(path)
        self.fetch()
        self.assertIs(Verdict.UNKNOWN, self.verdict())
        self.assertIs(Verdict.GOOD, self.verdict())
        self.assertFalse(self.ledger(self.name).suspect)

    def test_a_checksum_is_not_brought_back_before_it_was_compared(
        self,
    ) -> None:
        os.unlink(self.sidecar)
        self.fetch()
        self.node.configure(checksum_interval=WEEK)
        self.node.run(inline=False)
        self.assertFalse(os.path.exists(self.sidecar))

    @ddt.data((), ('sidecar',), ('ledger',))
    def test_with_other_bytes_it_differs_and_nothing_is_overwritten(
        self, lost: tuple[str, ...]
    ) -> None:
        sha1 = self.read_sidecar()
        ledger = self.node.layout.ledger(self.name)
        for what in lost:
            os.unlink(ledger if what == 'ledger' else self.sidecar)
        self.data = self.data[:-1] + b'?'
        self.fetch()
        for _pass in range(3):
            self.assertIs(Verdict.DIFFERS, self.verdict())
        self.assertEqual(sha1, self.read_sidecar())
        if not lost:
            self.assertEqual(self.learnt, self.digests())

    def test_with_the_bytes_of_the_one_before_the_last_it_is_good(
        self,
    ) -> None:
        """As it is put right: one differs, and is fetched once more."""
        sound = self.data
        self.data = self.data[:-1] + b'?'
        self.fetch()
        self.assertIs(Verdict.DIFFERS, self.verdict())
        self.data = sound
        self.fetch()
        self.assertIs(Verdict.GOOD, self.verdict())
        self.assertEqual(self.learnt, self.digests())

    def test_a_copy_of_one_that_differs_does_so_too(self) -> None:
        self.data = self.data[:-1] + b'?'
        for _fetch in range(2):
            self.fetch()
            self.assertIs(Verdict.DIFFERS, self.verdict())


class NotSettledTest(IdentityTestCase):
    """Fetched anew while it was not sure yet what the last one held."""

    def setUp(self) -> None:
        super().setUp()
        self.touch_while_reading(9)
        self.scrub_file()

    def settle_all_but(self, block: int) -> None:
        with self.failing_reads(block):
            self.scrub_file()
        self.assertFalse(self.ledger(self.name).settled)

    def fetch(self, data: bytes) -> None:
        nodes.write_after(self.path, data, self.path)

    def test_other_bytes_are_not_called_corrupt(self) -> None:
        self.settle_all_but(5)
        self.fetch(bytes(reversed(self.data)))
        for _scrub in range(3):
            finding = self.scrub(self.name)
            self.assertFalse(finding.harmful, finding)
        # It may be what was damaged on the way to another disk.
        self.assertIn('suspect', finding.note)

    def test_the_same_bytes_are_good_at_once(self) -> None:
        self.settle_all_but(5)
        self.fetch(self.data)
        self.assertEqual(
            knowledge.Finding(Verdict.GOOD), self.scrub(self.name)
        )

    def test_a_block_that_is_known_to_be_bad_stays_so(self) -> None:
        self.settle_all_but(5)
        self.flip(2)
        self.settle_all_but(5)
        self.assertEqual(CORRUPT, self.bad_blocks()[2])
        with open(self.path, 'rb') as file:
            self.fetch(file.read())
        for _scrub in range(3):
            self.assertIs(Verdict.CORRUPT, self.scrub_file())
            self.assertEqual(CORRUPT, self.bad_blocks()[2])
