# SPDX-License-Identifier: Apache-2.0

"""What is recalled of a file, which itself is not read."""

import json
import os

from nova_imagecache.cache import base_file
from nova_imagecache.content import knowledge
from tests.support import nodes
from tests.support import scrubbing

Knowledge = knowledge.Knowledge


class RecallTest(scrubbing.OneFileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.record = self.node.layout.ledger(self.name)

    def learn(self) -> None:
        for _scrub in range(2):
            self.scrub_file()

    def recall(self) -> Knowledge:
        file = base_file.BaseFile.named(self.node.layout, self.name)
        reads = self.note_reads()
        known = knowledge.recall(file)
        self.assertEqual([], reads)
        return known

    def test_of_a_file_without_anything_nothing_is_known(self) -> None:
        self.assertEqual(Knowledge(), self.recall())
        self.assertFalse(Knowledge().newer)
        self.assertEqual(len(self.data), self.recall().size)

    def test_when_its_inode_was_changed_last_is_known(self) -> None:
        status = os.stat(self.path)
        stat = self.recall().stat
        assert stat is not None
        self.assertEqual(status.st_ctime_ns, stat.changed)

    def test_one_with_little_data_in_much_is_known_to_be_sparse(self) -> None:
        self.assertFalse(self.recall().sparse)
        os.truncate(self.path, 2**43)
        self.assertTrue(self.recall().sparse)

    def test_what_was_learnt_is_known(self) -> None:
        self.learn()
        known = self.recall()
        self.assertEqual(Knowledge(self.sha1(), self.ledger(self.name)), known)

    def test_a_checksum_without_a_ledger_is_known(self) -> None:
        self.write_sidecar(self.sha1())
        self.assertEqual(Knowledge(self.sha1()), self.recall())

    def test_one_that_is_older_than_its_file_was_anothers(self) -> None:
        self.write_sidecar(self.sha1())
        nodes.write_after(self.path, self.data, self.sidecar)
        self.assertEqual(Knowledge(self.sha1(), older=True), self.recall())

    def test_where_there_is_a_ledger_that_tells_whose_it_is(self) -> None:
        self.learn()
        nodes.write_after(self.path, self.data, self.sidecar)
        known = self.recall()
        self.assertFalse(known.older)
        self.assertTrue(known.question)

    def test_no_checksum_is_not_an_older_one(self) -> None:
        self.write_sidecar('garbage')
        nodes.write_after(self.path, self.data, self.sidecar)
        self.assertEqual(Knowledge(), self.recall())

    def test_a_ledger_that_says_nothing_is_lost(self) -> None:
        self.learn()
        with open(self.record, 'w') as file:
            file.write('garbage')
        known = self.recall()
        self.assertEqual(
            Knowledge(self.sha1(), lost=True, problems=known.problems), known
        )
        (problem,) = known.problems
        self.assertIn(f'the ledger of {self.name} says nothing', problem)

    def test_one_of_a_newer_release_is_not_seen_and_not_lost(self) -> None:
        self.learn()
        with open(self.record, 'rb') as file:
            line = json.loads(file.readline())
        line['version'] += 1
        with open(self.record, 'w') as text:
            text.write(json.dumps(line) + '\n')
        known = self.recall()
        self.assertEqual(
            Knowledge(
                self.sha1(), blind=True, newer=True, problems=known.problems
            ),
            known,
        )
        (problem,) = known.problems
        self.assertIn('cannot be used', problem)

    def test_what_cannot_be_read_is_not_seen_and_not_lost(self) -> None:
        self.learn()
        for path, what in (
            (self.record, 'the ledger of'),
            (self.sidecar, 'the checksum of'),
        ):
            os.chmod(path, 0)
            with nodes.unprivileged():
                known = self.recall()
            os.chmod(path, 0o644)
            self.assertEqual(
                (True, False, False), (known.blind, known.lost, known.newer)
            )
            (problem,) = known.problems
            self.assertIn(what, problem)
            self.assertIn('Permission denied', problem)
