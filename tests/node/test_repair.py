# SPDX-License-Identifier: Apache-2.0

"""Bad blocks become good ones in place, or nothing changes."""

import hashlib
import os
import shutil
import time
from typing import Any

import ddt

from nova_imagecache.cache import locks
from nova_imagecache.content import blockmap
from nova_imagecache import errors
from nova_imagecache.heal import accounts
from nova_imagecache.heal import automatic
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import pages
from nova_imagecache.heal import patients
from nova_imagecache.heal import repair
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import files
from nova_imagecache.heal import writer
from tests.support import base
from tests.support import healing
from tests.support import nodes
from tests.support import processes
from tests.support import scrubbing

BLOCK = healing.BLOCK
Result = outcomes.Result
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


class RepairTest(healing.HealTestCase):
    def test_a_flipped_bit_is_put_right_in_place(self) -> None:
        self.damage(1)
        before = self.identity()
        outcome = self.heal(healing.Given(self.data))
        self.assert_healed()
        self.assertEqual(before, self.identity())
        (block,) = outcome.blocks
        self.assertEqual(
            (1, BLOCK, 2 * BLOCK, Result.REPAIRED, 'given', pages.PAGE),
            (
                block.index,
                block.start,
                block.end,
                block.result,
                block.source,
                block.written,
            ),
        )

    def test_the_ledger_says_nothing_else_than_before(self) -> None:
        before = self.ledger(self.name)
        self.damage(1)
        found = self.ledger(self.name)
        self.heal(healing.Given(self.data))
        after = self.ledger(self.name)
        self.assertNotEqual(before.bad, found.bad)
        self.assertEqual(vars(found) | {'bad': ()}, vars(after))

    def test_between_two_writes_others_get_the_lock(self) -> None:
        """It is held for less than a second, however slow the disk is."""
        self.patch(patients, '_HELD_SECONDS', 0)
        self.flip(1, at=5)
        self.damage(1, at=20000)
        held: list[bool] = []
        real = time.sleep

        def pause(seconds: float) -> None:
            with self.file(self.name).guard():
                held.append(False)
            real(0)

        self.patch(time, 'sleep', pause)
        outcome = self.heal(healing.Given(self.data))
        self.assertEqual(2 * pages.PAGE, outcome.written)
        self.assertEqual([False], held)
        self.assert_healed()

    def test_a_block_is_written_a_mebibyte_at_a_time(self) -> None:
        self.patch(patients, '_MOST_PAGES', 3)
        self.damage(5)
        written: list[int] = []

        def rewrite(path: str, inode: int, offset: int, data: bytes) -> None:
            written.append(len(data))
            writer.rewrite(path, inode, offset, data)

        with open(self.target, 'r+b') as file:
            file.seek(5 * BLOCK)
            file.write(bytes(7 * pages.PAGE))
        self.drop()
        self.heal(healing.Given(self.data), rewrite=rewrite)
        self.assertEqual([3 * pages.PAGE, 3 * pages.PAGE, pages.PAGE], written)
        self.assert_healed()

    def test_a_source_that_fails_in_any_way_is_told_and_the_next_asked(
        self,
    ) -> None:
        class Odd(healing.Given):
            def read(self, base: Any, wanted: Any) -> Any:
                yield from ()
                raise UnicodeError('odd')

        self.damage(1)
        outcome = self.heal(Odd(b'', 'odd'), healing.Given(self.data))
        self.assertEqual(('failed', 'odd'), outcome.sources['odd'])
        self.assert_healed()

    def test_what_is_too_short_or_too_long_is_no_data(self) -> None:
        class Odd(healing.Given):
            def read(self, base: Any, wanted: Any) -> Any:
                for each in wanted:
                    for length in (0, each.length - 1, each.length + 1):
                        yield sources.Piece(each, bytes(length), 'nowhere')

        self.damage(1)
        outcome = self.heal(Odd(b'', 'odd'), healing.Given(self.data))
        self.assertEqual('truncated', outcome.sources['odd'][0])
        self.assert_healed()

    def test_no_more_is_read_than_the_bad_block(self) -> None:
        self.damage(1)
        read: list[tuple[int, int]] = []
        real = pages.Medium.read

        def note(medium: Any, start: int, length: int, *args: Any) -> Any:
            read.append((start, length))
            return real(medium, start, length, *args)

        self.patch(pages.Medium, 'read', note)
        self.heal(healing.Given(self.data))
        self.assertLessEqual({start // BLOCK for start, _ in read}, {0, 1})
        self.assertEqual({1}, {
            start // BLOCK for start, length in read if length == BLOCK
        })  # fmt: skip

    def test_data_without_the_digest_is_never_written(self) -> None:
        self.damage(1, 2)
        before = self.content()
        wrong = bytearray(self.data)
        wrong[BLOCK + 77] ^= 1
        outcome = self.heal(healing.Given(bytes(wrong)))
        self.assertEqual(
            [Result.NO_DATA, Result.REPAIRED],
            [block.result for block in outcome.blocks],
        )
        self.assertEqual('other-bytes', outcome.sources['given'][0])
        self.assertEqual(before[: 2 * BLOCK], self.content()[: 2 * BLOCK])
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))

    def test_the_next_source_is_asked_for_what_is_left(self) -> None:
        self.damage(1, 2)
        wrong = bytearray(self.data)
        wrong[BLOCK] ^= 1
        first, second = healing.Given(bytes(wrong)), healing.Given(self.data)
        self.heal(first, second)
        self.assertEqual([BLOCK], second.asked)
        self.assert_healed()

    def test_a_source_that_fails_is_named_and_the_next_asked(self) -> None:
        class Failing(healing.Given):
            def read(self, base: Any, wanted: Any) -> Any:
                yield from ()
                raise sources.Unavailable(sources.State.TIMEOUT, 'too slow')

        self.damage(1)
        outcome = self.heal(Failing(b'', 'slow'), healing.Given(self.data))
        self.assertEqual({'slow': ('timeout', 'too slow')}, outcome.sources)
        self.assert_healed()

    def test_zeros_need_no_source(self) -> None:
        self.damage(4)
        outcome = self.heal()
        self.assertEqual('zeros', outcome.blocks[0].source)
        self.assert_healed()

    def test_the_last_page_is_put_right_and_the_file_does_not_grow(
        self,
    ) -> None:
        self.damage(5, at=BLOCK - 100)
        before = self.identity()
        outcome = self.heal(healing.Given(self.data))
        self.assert_healed()
        self.assertEqual(before, self.identity())
        self.assertEqual(
            len(self.data) % pages.PAGE, outcome.blocks[0].written
        )

    def test_a_page_in_the_middle_and_the_last_one_at_once(self) -> None:
        self.flip(5, at=5)
        self.damage(5, at=BLOCK - 100)
        outcome = self.heal(healing.Given(self.data))
        self.assert_healed()
        self.assertEqual(
            pages.PAGE + len(self.data) % pages.PAGE,
            outcome.blocks[0].written,
        )

    def test_a_block_that_is_good_again_is_cleared_unwritten(self) -> None:
        self.damage(1)
        self.flip(1)
        self.drop()
        given = healing.Given(self.data)
        outcome = self.heal(given, rewrite=self.fail)
        self.assertEqual([Result.WAS_GOOD], [b.result for b in outcome.blocks])
        self.assertEqual([], given.asked)
        self.assert_healed()

    def test_a_dry_run_changes_nothing(self) -> None:
        self.damage(1, 4)
        before = self.content(), self.identity(), self.ledger(self.name)
        outcome = self.heal(
            healing.Given(self.data), dry_run=True, rewrite=self.fail
        )
        self.assertEqual(
            [Result.POSSIBLE] * 2, [block.result for block in outcome.blocks]
        )
        self.assertEqual(
            before, (self.content(), self.identity(), self.ledger(self.name))
        )

    def test_a_file_without_damage_is_left_alone(self) -> None:
        given = healing.Given(self.data)
        self.assertEqual((), self.heal(given).blocks)
        self.assertEqual([], given.asked)

    def test_only_the_blocks_that_are_asked_for(self) -> None:
        self.damage(1, 2)
        self.heal(healing.Given(self.data), only=frozenset({2}))
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))

    def test_told_to_stop_it_begins_no_further_block(self) -> None:
        self.damage(1, 2)
        means = repair.Means()
        real = means.progress

        def stop(length: int) -> None:
            real(length)
            means.stop.set()

        outcome = self.heal(
            healing.Given(self.data), stop=means.stop, progress=stop
        )
        self.assertEqual('it was stopped', outcome.stopped)
        self.assertEqual({2: scrubbing.CORRUPT}, self.bad(self.name))
        self.heal(healing.Given(self.data))
        self.assert_healed()


@ddt.ddt
class SizeTest(healing.HealTestCase):
    @ddt.data(1, 511, 4096, 4097, BLOCK, BLOCK + 1)
    def test_the_last_byte_of_a_file_of_any_size(self, size: int) -> None:
        self.data = self.data[:size]
        self.name = self.node.add_image(f'of {size} bytes', data=self.data)
        self.target = self.node.base_path(self.name)
        self.learn()
        self.damage(0, at=size - 1)
        before = self.identity()
        outcome = self.heal(healing.Given(self.data))
        self.assertEqual((size - 1) % pages.PAGE + 1, outcome.written)
        self.assert_healed()
        self.assertEqual(before, self.identity())


class RefusalTest(healing.HealTestCase):
    """What cannot be repaired stays as it was, and it is said why."""

    def refused(self, result: Result) -> outcomes.Outcome:
        before = self.content()
        outcome = self.heal(healing.Given(self.data))
        self.assertEqual(result, outcome.blocks[0].result)
        self.assertTrue(outcome.stopped or result is Result.MEDIUM)
        self.assertEqual(before, self.content())
        self.assertIn(1, self.bad(self.name))
        return outcome

    def test_a_file_with_a_second_name(self) -> None:
        self.damage(1)
        os.link(self.target, self.target + '.other')
        self.refused(Result.LINKED)

    def test_an_immutable_file(self) -> None:
        self.damage(1)
        try:
            processes.run('chattr', '+i', self.target)
        except RuntimeError as error:
            self.skipTest(f'nothing is immutable here: {error}')
        self.addCleanup(processes.run, 'chattr', '-i', self.target)
        self.refused(Result.IMMUTABLE)

    def test_a_file_that_is_not_ours(self) -> None:
        self.damage(1)
        if os.geteuid() == 0:
            # Tests as root own everything; QEMU's user has it then.
            os.chown(self.target, 12345, 12345)
            for directory, directories, files in os.walk(self.temporary):
                for each in (*directories, *files):
                    path = os.path.join(directory, each)
                    if path != self.target:
                        os.chown(path, nodes.NOBODY, -1)
            os.chown(self.temporary, nodes.NOBODY, -1)
        else:
            os.chmod(self.target, 0o444)
        with nodes.unprivileged():
            self.refused(Result.NOT_PERMITTED)

    def test_a_file_that_was_swapped(self) -> None:
        self.damage(1)
        there = self.file(self.name)
        other = self.target + '.new'
        shutil.copyfile(self.target, other)

        class Swapping(healing.Given):
            def read(given, base: Any, wanted: Any) -> Any:
                os.rename(other, self.target)
                yield from super().read(base, wanted)

        before = self.content()
        outcome = repair.repair(there, [Swapping(self.data)])
        self.assertEqual([Result.CHANGED], [b.result for b in outcome.blocks])
        self.assertEqual(before, self.content())

    def test_a_file_whose_lock_is_held(self) -> None:
        self.damage(1)
        self.patch(patients, '_PATIENCE_SECONDS', 0)
        with locks.nova_lock(self.node.layout, self.name, blocking=True):
            self.refused(Result.FAILED)

    def test_a_symbolic_link_is_not_followed(self) -> None:
        target = os.path.join(self.temporary, 'target')
        shutil.move(self.target, target)
        os.symlink(target, self.target)
        error = self.assertRaises(
            writer.Refused,
            writer.rewrite,
            self.target,
            os.stat(target).st_ino,
            0,
            bytes(4096),
        )
        self.assertIs(writer.Refusal.CHANGED, error.refusal)

    def test_what_is_no_base_file_is_not_written_by_who_may_do_more(
        self,
    ) -> None:
        path = self.node.add_file('_base', 'other', data=bytes(8192))
        fd = os.open(os.path.dirname(path), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        for name in ('other', '../_base/other', path, f'{self.name}.sha1'):
            error = self.assertRaises(
                writer.Refused,
                writer.rewrite_base_file,
                fd,
                name,
                os.stat(path).st_ino,
                0,
                bytes(4096),
            )
            self.assertIs(writer.Refusal.NOT_PERMITTED, error.refusal)

    def test_nothing_but_whole_pages_within_the_file_is_written(self) -> None:
        inode, size = os.stat(self.target).st_ino, len(self.data)
        end = size - size % 4096
        for offset, length in (
            (1, 4096),
            (-4096, 4096),
            (0, 100),
            (0, 0),
            (end, 4096),
            (end, 8),
            (end + 4096, 4096),
        ):
            error = self.assertRaises(
                writer.Refused,
                writer.rewrite,
                self.target,
                inode,
                offset,
                bytes(length),
            )
            self.assertIs(writer.Refusal.CHANGED, error.refusal)
        self.assertTrue(self.data == self.content(), 'it is another')

    def test_without_block_digests(self) -> None:
        self.damage(1)
        os.unlink(self.node.layout.ledger(self.name))
        error = self.assertRaises(errors.NotNow, self.heal)
        self.assertIn('block digests', str(error))

    def test_a_block_whose_digest_is_not_known(self) -> None:
        self.damage(1)
        self.patch(blockmap.Blocks, 'get', lambda blocks, index: None)
        outcome = self.heal(healing.Given(self.data))
        self.assertEqual(
            [Result.NO_DIGEST], [b.result for b in outcome.blocks]
        )

    def test_where_it_is_not_known_which_of_two_is_right(self) -> None:
        nodes.write_after(self.target, self.data, self.sidecar)
        self.damage(1)
        error = self.assertRaises(errors.NotNow, self.heal)
        self.assertIn('which of the two', str(error))

    def test_a_file_that_has_another_size(self) -> None:
        self.damage(1)
        os.truncate(self.target, len(self.data) - 1)
        error = self.assertRaises(errors.NotNow, self.heal)
        self.assertIn('bytes long', str(error))


@ddt.ddt
class CommandTest(healing.HealTestCase):
    """The command repair, as it is typed."""

    def test_a_file_that_a_person_has_is_a_source(self) -> None:
        self.damage(1)
        code, blocks, summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(0, code, stderr)
        self.assertEqual('repaired', blocks[0]['result'])
        self.assertEqual(1, summary['repaired'])
        self.assert_healed()
        self.assertEqual(0, self.run_command('verify')[0])

    @ddt.data(0, BLOCK, BLOCK + 100)
    def test_one_that_is_too_short_is_said_to_be(self, size: int) -> None:
        os.truncate(self.copy, size)
        self.damage(1)
        code, _blocks, summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(3, code)
        self.assertEqual('truncated', summary['sources']['file']['state'])
        self.assertIn(f'ends before byte {2 * BLOCK - 1}', stderr)

    @ddt.data('fifo', 'symlink', 'directory')
    def test_what_is_no_regular_file_is_said_to_be_none(
        self, what: str
    ) -> None:
        self.damage(1)
        moved = os.path.join(self.temporary, 'moved')
        os.rename(self.target, moved)
        if what == 'fifo':
            os.mkfifo(self.target)
        elif what == 'symlink':
            os.symlink(moved, self.target)
        else:
            os.mkdir(self.target)
        for argv in (
            ('repair', self.name, '--source', self.copy),
            ('verify', '--origin', self.name),
        ):
            code, _stdout, stderr = self.run_command(*argv)
            self.assertEqual(1, code, stderr)
            self.assertIn('no regular file, which a base file is', stderr)
        with open(moved, 'rb') as file:
            self.assertFalse(self.data == file.read(), 'it was written')

    @ddt.data('qcow2', 'vmdk', 'vdi', 'vpc', 'vhdx')
    def test_an_image_in_any_format_is_a_source(self, form: str) -> None:
        self.damage(1, 5)
        image = os.path.join(self.temporary, 'image')
        nodes.qemu_img('convert', '-O', form, self.copy, image)
        code, _blocks, _summary, stderr = self.repair('--source', image)
        self.assertEqual(0, code, stderr)
        self.assert_healed()

    def test_a_hostile_image_is_no_source(self) -> None:
        self.damage(1)
        image = os.path.join(self.temporary, 'image')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-F', 'raw', '-b', self.copy, image
        )
        code, _blocks, summary, _stderr = self.repair('--source', image)
        self.assertEqual(3, code)
        self.assertEqual('hostile', summary['sources']['file']['state'])

    def test_a_base_file_that_is_an_image_itself(self) -> None:
        name = self.node.base_path('x')
        nodes.qemu_img('convert', '-O', 'qcow2', self.copy, name)
        with open(name, 'rb') as file:
            self.data = file.read()
        os.unlink(name)
        self.name = self.node.add_image('qcow2', data=self.data)
        self.target = self.node.base_path(self.name)
        self.learn()
        self.damage(2)
        with open(self.copy, 'wb') as copy:
            copy.write(self.data)
        code, _blocks, _summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(0, code, stderr)
        self.assert_healed()

    def test_a_guest_that_copies_bad_bytes_until_the_last_moment_is_named(
        self,
    ) -> None:
        """All of an image may have to come first, which takes hours."""
        disk = self.node.add_overlay(GUEST, self.name)
        self.damage(1)
        real = files.File.read

        def read(*args: Any) -> Any:
            # In the same cluster as the bad byte.
            nodes.qemu_io(disk, f'write {BLOCK + 8192} 4k')
            yield from real(*args)

        self.patch(files.File, 'read', read)
        code, _blocks, summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(0, code, stderr)
        (guest,) = summary['guests']
        self.assertEqual(
            ('still-damaged', [[BLOCK, 2 * BLOCK]]),
            (guest['fate'], guest['extents']),
        )

    def counted(self) -> dict[str, float]:
        """Give what metrics tell of repairs."""
        code, stdout, stderr = self.run_command('metrics')
        self.assertEqual((0, ''), (code, stderr))
        return {
            line.rpartition(' ')[0].removeprefix('nova_imagecache_'): float(
                line.rpartition(' ')[2]
            )
            for line in stdout.splitlines()
            if line.startswith('nova_imagecache_repair')
        }

    def test_what_a_person_repairs_is_counted_as_all_else_is(self) -> None:
        repaired = 'repairs_total{result="repaired",source="file"}'
        for total in (2, 4):
            self.damage(1, 2)
            self.assertEqual(0, self.repair('--source', self.copy)[0])
            counted = self.counted()
            self.assertEqual(total, counted[repaired])
            self.assertEqual(0, counted['repair_paused'])
        self.damage(1)
        self.repair()
        left = 'repairs_total{result="no-data",source="none"}'
        counted = self.counted()
        self.assertEqual((4, 1), (counted[repaired], counted[left]))

    def test_one_that_is_interrupted_is_counted_by_the_next_and_once(
        self,
    ) -> None:
        interrupted = 'repairs_total{result="interrupted",source="none"}'
        self.damage(1, 2)

        def die(*args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        with base.patched(repair, 'repair', die):
            code, _stdout, _stderr = self.run_command('repair', self.name)
        self.assertEqual(130, code)
        for _time in range(2):
            self.repair('--source', self.copy)
            self.assertEqual(2, self.counted()[interrupted])

    def test_one_that_cannot_be_made_is_not_interrupted(self) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise errors.NotNow('not now')

        self.damage(1)
        with base.patched(repair, 'repair', fail):
            self.assertEqual(1, self.run_command('repair', self.name)[0])
        layout, host = self.node.layout, self.node.settings.host
        account = accounts.load(layout, host)
        self.assertEqual(({}, {}), (account.begun, account.results))

    def test_what_is_only_tried_is_not_counted(self) -> None:
        self.damage(1)
        before = self.counted()
        self.repair('--dry-run', '--source', self.copy)
        self.assertEqual(before, self.counted())

    def test_what_a_person_has_repaired_waits_for_nothing_any_more(
        self,
    ) -> None:
        """A scrub had failed to."""
        self.damage(1)
        automatic.Healer(
            self.node.settings, sources_of=lambda settings: []
        ).heal(self.name)
        layout, host = self.node.layout, self.node.settings.host
        self.assertIn(self.name, accounts.load(layout, host).files)
        self.repair('--source', self.copy)
        account = accounts.load(layout, host)
        self.assertEqual({}, account.files)
        self.assertEqual({'file': 1}, account.repaired)

    def test_a_person_has_no_budget_to_spend(self) -> None:
        self.damage(1)
        self.repair('--source', self.copy)
        layout, host = self.node.layout, self.node.settings.host
        self.assertEqual(0, accounts.load(layout, host).spent)

    def test_damage_that_stays_is_exit_code_3(self) -> None:
        self.damage(1)
        code, blocks, _summary, _stderr = self.repair()
        self.assertEqual((3, 'no-data'), (code, blocks[0]['result']))

    def test_what_stops_it_is_exit_code_1(self) -> None:
        self.damage(1)
        os.link(self.target, self.target + '.other')
        code, _blocks, summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(1, code)
        self.assertIn('2 names', summary['stopped'])
        self.assertIn('2 names', stderr)

    def test_nothing_to_do_is_fine(self) -> None:
        code, blocks, _summary, stderr = self.repair()
        self.assertEqual((0, []), (code, blocks))
        self.assertIn('no block of it is known to be bad', stderr)

    def test_a_dry_run_says_what_could_be_done(self) -> None:
        self.damage(1)
        before = self.content()
        code, blocks, _summary, _stderr = self.repair(
            '--dry-run', '--source', self.copy
        )
        self.assertEqual((0, 'possible'), (code, blocks[0]['result']))
        self.assertEqual(before, self.content())

    def test_a_resized_sibling_has_the_blocks_of_its_original(self) -> None:
        self.node.add_base(
            f'{self.name}_20', data=self.data, size=len(self.data) + BLOCK
        )
        self.damage(1, 5)
        code, blocks, _summary, stderr = self.repair()
        self.assertEqual(0, code, stderr)
        self.assertTrue(blocks[0]['source'].startswith('siblings'))
        self.assert_healed()

    def test_an_original_has_the_blocks_of_its_resized_sibling(self) -> None:
        whole = self.data
        self.name = f'{self.name}_20'
        self.data = whole + bytes(2 * BLOCK)
        self.target = self.node.add_base(self.name, data=self.data)
        self.learn()
        self.damage(1, 5)
        code, _blocks, _summary, stderr = self.repair()
        self.assertEqual(0, code, stderr)
        self.assert_healed()

    def test_what_is_in_the_trash_is_a_source(self) -> None:
        digits = '65000000'
        os.makedirs(self.node.layout.trash, exist_ok=True)
        shutil.copy(
            self.copy,
            self.node.layout.file(f'{self.name}.{digits}', trashed=True),
        )
        self.damage(1)
        self.assertEqual(0, self.repair()[0])
        self.assert_healed()

    def test_pages_of_several_bad_copies_are_put_together(self) -> None:
        """Each has another page that is bad, and no other source has any."""
        self.damage(1)
        for number, page in enumerate((3, 7), 1):
            data = bytearray(self.data)
            data[BLOCK + page * 4096] ^= 1
            name = f'{self.name}_{len(self.data) + number * base.MIB}'
            self.node.add_base(name, data=bytes(data))
        code, (block,), _summary, stderr = self.repair()
        self.assertEqual(0, code, stderr)
        self.assertIn('combined', block['source'])
        self.assertIn(self.name, block['source'])
        # Of all the block one page was bad.
        self.assertEqual(4096, block['written'])
        self.assert_healed()

    def test_copies_that_have_the_same_page_bad_are_of_no_use(self) -> None:
        self.damage(1)
        data = bytearray(self.data)
        data[BLOCK] ^= 1
        self.node.add_base(
            f'{self.name}_{len(self.data) + base.MIB}', data=bytes(data)
        )
        before = self.content()
        code, _blocks, _summary, _stderr = self.repair()
        self.assertEqual(3, code)
        self.assertEqual(before, self.content())

    def test_the_base_file_itself_is_no_source(self) -> None:
        self.damage(1)
        code, _blocks, summary, _stderr = self.repair('--source', self.target)
        self.assertEqual(3, code)
        self.assertIn('itself', summary['sources']['file']['message'])

    @ddt.data('ssh://-oProxyCommand=x', 'http://x/y', '', 'ssh://')
    def test_what_is_no_source_is_refused(self, text: str) -> None:
        self.damage(1)
        code, _blocks, _summary, stderr = self.repair('--source', text)
        self.assertEqual(1, code)
        self.assertIn('ssh://', stderr)

    def test_another_host_is_a_source(self) -> None:
        """ssh(1) is played by a script that runs what it is told to."""
        self.damage(1, 5)
        tools = os.path.join(self.temporary, 'tools')
        os.mkdir(tools)
        script = os.path.join(tools, 'ssh')
        there = os.path.join(self.temporary, 'there $x')
        shutil.copy(self.copy, there)
        with open(script, 'w') as file:
            file.write(
                '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n'
                '[ "$2" = nova@peer ] && exec sh -c "$3"\nexit 255\n'
            )
        os.chmod(script, 0o755)
        os.chmod(self.temporary, 0o755)
        self.patch(
            os, 'environ', {**os.environ, 'PATH': f'{tools}:/usr/bin:/bin'}
        )
        code, _blocks, summary, stderr = self.repair('--source', 'ssh://other')
        self.assertEqual('unreachable', summary['sources']['ssh']['state'])
        code, _blocks, summary, stderr = self.repair(
            '--source', f'ssh://nova@peer{there}'
        )
        self.assertEqual(0, code, stderr)
        self.assertEqual(2 * BLOCK - 99, summary['fetched']['ssh'])
        self.assertIn(
            f'fetched_bytes_total{{result="repaired",source="ssh"}} '
            f'{2 * BLOCK - 99}.0',
            self.run_command('metrics')[1],
        )
        self.assert_healed()

    def test_its_checksum_is_what_it_was(self) -> None:
        self.damage(1)
        self.repair('--source', self.copy)
        digest = hashlib.sha1(self.content()).hexdigest()
        self.assertEqual(digest, self.read_sidecar())
