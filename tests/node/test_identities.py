# SPDX-License-Identifier: Apache-2.0

"""One file that is seen in two ways, and two that look like one.

What a host sees of a file (inode, birth time, generation) differs between a
server and its client, and changes with a remount.
"""

import os


from nova_imagecache.cache import identity
from nova_imagecache.cache import states
from tests.support import base
from tests.support import identities
from tests.support import nodes
from tests.support import scrubbing

CORRUPT = scrubbing.CORRUPT
Verdict = scrubbing.Verdict
WEEK = 7 * base.DAY


class SharedTest(identities.IdentityTestCase):
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


class RemountTest(identities.IdentityTestCase):
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


class InodeReuseTest(identities.IdentityTestCase):
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
