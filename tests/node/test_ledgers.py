# SPDX-License-Identifier: Apache-2.0

"""Ledgers on the disk: what is read back, and what is refused."""

import dataclasses
import json
import os
from typing import Any

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.cache import records
from nova_imagecache.content import blockmap
from nova_imagecache.content import ledgers
from nova_imagecache import errors
from tests.support import base
from tests.support import letters
from tests.support import nodes
from tests.support import scrubbing

CORRUPT = scrubbing.CORRUPT
BLOCK = letters.BLOCK
NOW = letters.NOW


class LedgerTestCase(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(blockmap, 'BLOCK_SIZE', BLOCK)
        name = self.node.add_image('image', data=b'x' * (3 * BLOCK - 9))
        self.file = base_file.BaseFile.named(self.node.layout, name)
        self.begun = ledgers.Ledger.begin(
            self.file.incarnation.key, 3 * BLOCK - 9, letters.ALGORITHM
        )

    def save(
        self, ledger: ledgers.Ledger, blocks: blockmap.Blocks | None = None
    ) -> None:
        with ledger.prepared(self.file, blocks) as put:
            put()

    def load(self) -> ledgers.Ledger | None:
        return ledgers.Ledger.load(self.file)


@ddt.ddt
class LoadTest(LedgerTestCase):
    def test_where_there_is_none_there_is_none(self) -> None:
        self.assertIsNone(self.load())

    def test_it_is_read_as_it_was_written(self) -> None:
        full = dataclasses.replace(
            self.begun,
            image='image',
            question=True,
            differs=True,
            unsettled=(ledgers.Run(1, 2),),
            suspect=True,
            sha1='f' * 40,
            proven=True,
            stored='e' * 40,
            found='d' * 40,
            started=NOW,
            position=2,
            times=(1, 2),
            read=NOW,
            verified=NOW,
            bad=ledgers.gather({0: CORRUPT, 2: scrubbing.UNREADABLE}),
            unreadable='why',
            attempted=NOW,
            rebaselined=7.0,
            anew=True,
        )
        for ledger in (self.begun, full):
            self.save(ledger)
            self.assertEqual(ledger, self.load())

    def test_of_another_file_it_is_a_question(self) -> None:
        other = dataclasses.replace(self.begun, key=(1, 2, None), read=NOW)
        self.save(other)
        self.assertEqual(
            other.asked_of(self.file.incarnation.key), self.load()
        )

    @ddt.data(
        {'position': 4},
        {'bad': (ledgers.BadBlocks(3, 1, CORRUPT),)},
        {'bad': (ledgers.BadBlocks(0, 4, CORRUPT),)},
        {'unsettled': (ledgers.Run(0, 3),)},
        {'size': 0, 'position': 1},
        {'block_size': 2 * BLOCK},
        {'size': blockmap.MOST_BLOCKS * BLOCK},
        {'block_size': 64 * base.MIB},
        {'size': 2**42 + 1, 'block_size': 2**27},
        {'rebaselined': 0.0},
        {'unsettled': (ledgers.Run(0, 1), ledgers.Run(1, 1))},
    )
    def test_this_may_be(self, fields: dict[str, Any]) -> None:
        ledger = dataclasses.replace(self.begun, **fields)
        self.save(ledger)
        self.assertEqual(ledger, self.load())

    @ddt.data(
        {'algorithm': 'md5'},
        {'block_size': 0},
        {'block_size': 0, 'size': 0},
        {'block_size': -4096},
        {'block_size': 2048},
        {'block_size': 4096 + 512},
        {'size': -1},
        {'size': blockmap.MOST_BLOCKS * BLOCK + 1},
        {'position': -1},
        {'position': 5},
        {'bad': (ledgers.BadBlocks(-1, 1, CORRUPT),)},
        {'bad': (ledgers.BadBlocks(0, 0, CORRUPT),)},
        {'bad': (ledgers.BadBlocks(0, 5, CORRUPT),)},
        {'bad': (ledgers.BadBlocks(4, 1, CORRUPT),)},
        {
            'bad': (
                ledgers.BadBlocks(0, 1, CORRUPT),
                ledgers.BadBlocks(4, 1, CORRUPT),
            )
        },
        {'unsettled': (ledgers.Run(0, 10**9),)},
        {'unsettled': (ledgers.Run(0, -1),)},
        {'unsettled': (ledgers.Run(0, 2), ledgers.Run(1, 1))},
        {'bad': 2 * (ledgers.BadBlocks(0, 1, CORRUPT),)},
        {'block_size': 2**50},
        {'block_size': 64 * base.MIB + 4096},
        {'size': 2**42, 'block_size': 2**27 + 4096},
        {'rebaselined': 253402300800.0},
        {'rebaselined': 1e20},
        {'rebaselined': -1.0},
        {'rebaselined': float('nan')},
    )
    def test_this_is_what_no_ledger_of_ours_says(
        self, fields: dict[str, Any]
    ) -> None:
        self.save(dataclasses.replace(self.begun, **fields))
        self.assertRaises(errors.Damaged, self.load)

    def test_what_is_larger_than_any_ledger_is_not_read(self) -> None:
        self.save(self.begun)
        with open(self.file.ledger, 'r+b') as file:
            file.truncate(16 * base.MIB)
        error = self.assertRaises(errors.Damaged, self.load)
        self.assertIn('its payload has another length', str(error))
        os.truncate(self.file.ledger, 16 * base.MIB + 1)
        error = self.assertRaises(errors.Damaged, self.load)
        self.assertIn('it is too large', str(error))


class BlocksTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.blocks = blockmap.Blocks(
            letters.ALGORITHM, self.begun.size, BLOCK
        )
        self.blocks.put(1, letters.digest_of('a'))
        self.save(self.begun, self.blocks)

    def test_they_are_read_as_they_were_written(self) -> None:
        blocks = self.begun.load_blocks(self.file)
        self.assertEqual(self.blocks.encode(), blocks.encode())

    def test_without_them_none_is_known(self) -> None:
        self.save(self.begun)
        self.assertEqual(3, self.begun.load_blocks(self.file).unknown)

    def test_those_of_another_ledger_are_refused(self) -> None:
        other = dataclasses.replace(self.begun, suspect=True)
        self.assertRaises(errors.NotNow, other.load_blocks, self.file)

    def test_those_of_another_file_are_asked(self) -> None:
        self.save(
            dataclasses.replace(self.begun, key=(1, 2, None)), self.blocks
        )
        ledger = self.load()
        assert ledger is not None
        blocks = ledger.load_blocks(self.file)
        self.assertEqual(self.blocks.encode(), blocks.encode())

    def test_those_that_cannot_be_are_damaged(self) -> None:
        longer = blockmap.Blocks(letters.ALGORITHM, 4 * BLOCK, BLOCK)
        longer.put(0, letters.digest_of('a'))
        self.save(self.begun, longer)
        self.assertRaises(errors.Damaged, self.begun.load_blocks, self.file)


@ddt.ddt
class VersionTest(LedgerTestCase):
    def rewrite(self, version: int, **changes: Any) -> None:
        """Have another release write the ledger."""
        self.save(dataclasses.replace(self.begun, read=NOW))
        with open(self.file.ledger, 'rb') as file:
            line = json.loads(file.readline())
        body = line['sealed']['body']
        for name in ('question', 'differs', 'anew', 'unsettled'):
            del body[name]
        body |= {'settled': True, 'changed': False} | changes
        line['sha256'] = records._digest(records._serialised(line['sealed']))
        line['version'] = version
        with open(self.file.ledger, 'w') as file_out:
            file_out.write(json.dumps(line) + '\n')

    def converted(self, **changes: Any) -> ledgers.Ledger:
        self.rewrite(2, **changes)
        ledger = self.load()
        assert ledger is not None
        return ledger

    def test_what_was_settled_is(self) -> None:
        self.assertEqual(
            dataclasses.replace(self.begun, read=NOW), self.converted()
        )

    def test_what_was_not_is_not_anywhere(self) -> None:
        ledger = self.converted(settled=False)
        self.assertEqual((ledgers.Run(0, 3),), ledger.unsettled)

    def test_what_was_never_read_has_nothing_to_settle(self) -> None:
        self.assertEqual(
            (), self.converted(settled=False, read=None).unsettled
        )

    def test_nor_has_an_empty_file(self) -> None:
        self.assertEqual((), self.converted(settled=False, size=0).unsettled)

    @ddt.data(
        (False, False, False),
        (True, False, True),
        (False, True, True),
        (True, True, True),
    )
    @ddt.unpack
    def test_a_change_makes_it_suspect(
        self, suspect: bool, changed: bool, expected: bool
    ) -> None:
        ledger = self.converted(suspect=suspect, changed=changed)
        self.assertIs(expected, ledger.suspect)

    def test_one_of_version_1_no_release_has_written(self) -> None:
        self.rewrite(1)
        self.assertRaises(errors.Damaged, self.load)

    def test_a_newer_one_is_known_to_be_one(self) -> None:
        self.assertFalse(ledgers.is_newer(self.file.ledger))
        self.save(self.begun)
        self.assertFalse(ledgers.is_newer(self.file.ledger))
        self.rewrite(5)
        self.assertTrue(ledgers.is_newer(self.file.ledger))
        self.assertRaises(errors.Newer, self.load)
        self.assertRaises(errors.Newer, self.save, self.begun)

    def test_one_that_cannot_be_read_is_not_known_to_be_newer(self) -> None:
        self.rewrite(5)
        os.chmod(self.file.ledger, 0)
        with nodes.unprivileged():
            self.assertFalse(ledgers.is_newer(self.file.ledger))


class OutliveTest(LedgerTestCase):
    """The file has gone, and its ledger stays."""

    def outlive(self, ledger: ledgers.Ledger) -> ledgers.Ledger | None:
        blocks = blockmap.Blocks(letters.ALGORITHM, self.begun.size, BLOCK)
        blocks.put(1, letters.digest_of('a'))
        self.save(ledger, blocks)
        ledgers.outlive(self.node.layout, self.file.name)
        after = self.load()
        assert after is not None
        self.assertEqual(
            blocks.encode(), after.load_blocks(self.file).encode()
        )
        return after

    def test_what_is_known_is_a_question_to_the_next_file(self) -> None:
        read = dataclasses.replace(self.begun, read=NOW, started=NOW)
        self.assertEqual(
            dataclasses.replace(read, question=True, started=None),
            self.outlive(read),
        )

    def test_what_is_not_sure_is_asked_as_well(self) -> None:
        for ledger in (
            dataclasses.replace(self.begun, started=NOW, position=1),
            dataclasses.replace(
                self.begun,
                read=NOW,
                unsettled=(ledgers.Run(0, 1),),
                started=NOW,
                position=1,
            ),
        ):
            found = self.outlive(ledger)
            assert found is not None
            self.assertTrue(found.question)

    def test_what_is_a_question_already_stays_as_it_is(self) -> None:
        ledger = dataclasses.replace(
            self.begun, read=NOW, question=True, started=NOW, position=1
        )
        self.assertEqual(ledger, self.outlive(ledger))

    def test_without_a_ledger_there_is_nothing_to_note(self) -> None:
        ledgers.outlive(self.node.layout, self.file.name)
        self.assertFalse(os.path.exists(self.file.ledger))
