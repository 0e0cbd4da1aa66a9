# SPDX-License-Identifier: Apache-2.0

"""A cache that is copied to another place, with all that is known of it.

Each file has another inode and birth time there, and some ways to copy give a
checksum an earlier birth than its base file.
"""

import os
import random
import shutil
import subprocess
from typing import ClassVar

import ddt

from nova_imagecache.cache import identity
from nova_imagecache.cli import exit_codes
from tests.support import mounts
from tests.support import nodes
from tests.support import scrubbing

BLOCK = scrubbing.BLOCK
CORRUPT = scrubbing.CORRUPT
Verdict = scrubbing.Verdict
SIZE = 6 * BLOCK - 777

#: Ways to copy a directory, in the shell.
WAYS = {
    'cp': 'cp -a "$1/." "$2"',
    'tar': 'tar -C "$1" -cf - . | tar -C "$2" -xf -',
    'rsync': 'rsync -a "$1/" "$2/"',
    # Base files are touched meanwhile, so they are copied once more, and their
    # checksums are not.
    'rsync_in_use': (
        'rsync -a "$1/" "$2/"; '
        'find "$1/_base" -maxdepth 1 -type f ! -name "*.sha1" '
        '-exec touch -d yesterday {} +; rsync -a "$1/" "$2/"'
    ),
    'mv': 'cp -a "$1/locks" "$2" && mv "$1/_base" "$2"',
    'small_files_first': (
        'cd "$1" && find . -type d -exec mkdir -p "$2/{}" \\; && '
        'find . -type f -printf "%s %p\\n" | sort -n | cut -d" " -f2- | '
        'while read -r path; do cp -p "$path" "$2/$path"; done'
    ),
    'large_files_first': (
        'cd "$1" && find . -type d -exec mkdir -p "$2/{}" \\; && '
        'find . -type f -printf "%s %p\\n" | sort -rn | cut -d" " -f2- | '
        'while read -r path; do cp -p "$path" "$2/$path"; done'
    ),
    'in_parallel': (
        'cd "$1" && find . -type d -exec mkdir -p "$2/{}" \\; && '
        'find . -type f -print0 | '
        'xargs -0 -P 4 -I "{}" cp -p "{}" "$2/{}"'
    ),
}


class MovedTestCase(mounts.MountingTestCase, scrubbing.ScrubTestCase):
    """A cache in which all is known of some files, before it is moved.

    :ivar learnt: the digests and the stored checksum of each base file
    :ivar keys: what told each before
    """

    def fill(self) -> None:
        """Have sound files, one that is bad, and a suspect."""
        self.node.configure(checksum=True, remove_unused=False)
        self.sound = [self.node.add_image(f'sound {i}', data=self.data(i))
                      for i in range(3)]  # fmt: skip
        self.bad_one = self.node.add_image('bad', data=self.data(7))
        self.suspect = self.node.add_image('suspect', data=self.data(8))
        self.node.run(inline=False)
        self.scrub(self.suspect, outlived=True)
        for _pass in range(2):
            self.node.run()
        self.flip(self.bad_one, 2)
        self.assertEqual(
            [self.bad_one], [file.name for file in self.node.run().corrupt]
        )
        self.learnt = self.what_is_learnt()
        self.keys = {name: self.key(name) for name in self.learnt}

    def data(self, seed: int) -> bytes:
        return random.Random(seed).randbytes(SIZE)

    def flip(self, name: str, block: int) -> None:
        nodes.flip_bit(self.node.base_path(name), block * BLOCK + 100)

    def what_is_learnt(self) -> dict[str, tuple[bytes, bytes]]:
        learnt = {}
        for name in sorted(os.listdir(self.node.layout.ledgers)):
            with open(self.node.layout.ledger(name), 'rb') as file:
                digests = file.read().partition(b'\n')[2]
            with open(self.node.base_path(name) + '.sha1', 'rb') as file:
                learnt[name] = (digests, file.read())
        return learnt

    def move(self, way: str, target: str) -> None:
        """Copy the cache, and go on with a node that has the copy."""
        if 'rsync' in way:
            self.need('rsync')
        os.makedirs(target, exist_ok=True)
        source = self.node.layout.instances
        subprocess.run(
            ['sh', '-ec', WAYS[way], 'sh', source, target], check=True
        )
        clock = self.node.clock
        self.node = nodes.Node(target)
        self.node.clock = clock
        self.node.configure(checksum=True, remove_unused=False)

    def key(self, name: str) -> identity.Key:
        path = self.node.base_path(name)
        return identity.stat_of(path).incarnation.key

    def expected(self, name: str) -> Verdict:
        """Say what is found of a file that was damaged on the way."""
        likeness = identity.compare(self.keys[name], self.key(name))
        another = likeness is identity.Likeness.ANOTHER
        return Verdict.DIFFERS if another else Verdict.CORRUPT

    def verdicts(self) -> tuple[int, dict[str, Verdict]]:
        """Make a pass; give its exit code, and the verdicts."""
        report = self.node.run()
        return exit_codes.of(report), {
            file.name: file.checksum for file in report.files
        }

    def assert_nothing_was_overwritten(self) -> None:
        self.assertEqual(self.learnt, self.what_is_learnt())
        self.assertFalse(
            [
                name
                for name in os.listdir(self.node.layout.ledgers)
                if name.endswith('.damaged')
            ]
        )

    def check(self, way: str, target: str) -> None:
        """Move a cache in which a sound file is damaged on the way."""
        self.fill()
        self.move(way, target)
        first, second, third = self.sound
        damaged = second
        self.flip(damaged, 4)
        # Nobody is accused of what nobody has read.
        before = self.node.make_pass().preview()
        for name in (first, third):
            verdict = self.file_of(before, name).checksum
            self.assertIn(verdict, (Verdict.GOOD, Verdict.UNKNOWN))
        code, verdicts = self.verdicts()
        self.assertEqual(exit_codes.CORRUPTION, code)
        self.assertIs(self.expected(damaged), verdicts[damaged])
        self.assertEqual({4: CORRUPT}, self.bad(damaged))
        # What was bad is known still, and so are its blocks.
        self.assertIs(Verdict.CORRUPT, verdicts[self.bad_one])
        self.assertEqual({2: CORRUPT}, self.bad(self.bad_one))
        # Good in the first reading, without a new baseline.
        for name in (first, third, self.suspect):
            self.assertIs(Verdict.GOOD, verdicts[name], name)
            self.assertIsNone(self.ledger(name).rebaselined)
            self.assertEqual({}, self.bad(name))
        self.assertTrue(self.ledger(self.suspect).suspect)
        self.assertFalse(self.ledger(first).suspect)
        self.assert_nothing_was_overwritten()
        # And so it stays.
        self.assertEqual((code, verdicts), self.verdicts())
        self.assert_nothing_was_overwritten()


@ddt.ddt
class WayTest(MovedTestCase):
    @ddt.data(*WAYS)
    def test_nothing_is_lost(self, way: str) -> None:
        self.check(way, os.path.join(self.temporary, 'new'))

    @ddt.data('cp', 'rsync')
    def test_a_cache_that_moves_twice_before_it_is_read(
        self, way: str
    ) -> None:
        self.fill()
        self.move(way, os.path.join(self.temporary, 'new'))
        self.move(way, os.path.join(self.temporary, 'newer'))
        code, verdicts = self.verdicts()
        self.assertEqual(exit_codes.CORRUPTION, code)
        self.assertEqual(
            {
                **dict.fromkeys(self.sound, Verdict.GOOD),
                self.suspect: Verdict.GOOD,
                self.bad_one: Verdict.CORRUPT,
            },
            verdicts,
        )
        self.assert_nothing_was_overwritten()

    def test_what_was_cut_short_on_the_way_differs(self) -> None:
        self.fill()
        self.move('cp', os.path.join(self.temporary, 'new'))
        name = self.sound[0]
        os.truncate(self.node.base_path(name), 3 * BLOCK)
        code, verdicts = self.verdicts()
        self.assertEqual(
            (exit_codes.CORRUPTION, Verdict.DIFFERS), (code, verdicts[name])
        )
        self.assert_nothing_was_overwritten()

    def test_zeros_in_the_place_of_data_differ(self) -> None:
        """A copy that was cut short by a crash, and has its size."""
        self.fill()
        self.move('cp', os.path.join(self.temporary, 'new'))
        name = self.sound[0]
        self.overwrite(name, 0, bytes(SIZE))
        code, verdicts = self.verdicts()
        self.assertEqual(
            (exit_codes.CORRUPTION, Verdict.DIFFERS), (code, verdicts[name])
        )
        self.assert_nothing_was_overwritten()

    def test_a_reading_that_is_stopped_each_time_accuses_nobody(self) -> None:
        self.fill()
        self.move('cp', os.path.join(self.temporary, 'new'))
        name = self.sound[0]
        self.scrub(name, **self.stop_after(4))
        self.go_on()
        self.assertIs(Verdict.GOOD, self.scrub(name).verdict)
        self.assert_nothing_was_overwritten()

    def test_damage_found_before_it_was_stopped_is_not_forgotten(
        self,
    ) -> None:
        self.fill()
        self.move('cp', os.path.join(self.temporary, 'new'))
        name = self.sound[0]
        self.flip(name, 1)
        self.scrub(name, checkpoint_seconds=0, **self.stop_after(4))
        self.go_on()
        self.assertIs(Verdict.DIFFERS, self.scrub(name).verdict)
        self.assertEqual({1: CORRUPT}, self.bad(name))
        self.assert_nothing_was_overwritten()

    def test_damage_that_was_known_and_is_mended_by_the_copy_is_over(
        self,
    ) -> None:
        self.fill()
        self.move('cp', os.path.join(self.temporary, 'new'))
        self.flip(self.bad_one, 2)
        code, verdicts = self.verdicts()
        self.assertEqual(
            (exit_codes.FINE, Verdict.GOOD), (code, verdicts[self.bad_one])
        )
        self.assert_nothing_was_overwritten()


@ddt.ddt
class LeftBehindTest(MovedTestCase):
    """Some of what is known does not come along."""

    @ddt.data('cp', 'rsync_in_use')
    def test_checksums_alone_tell_that_a_file_is_sound_or_not(
        self, way: str
    ) -> None:
        self.fill()
        self.move(way, os.path.join(self.temporary, 'new'))
        shutil.rmtree(self.node.layout.own)
        for name in self.learnt if way == 'rsync_in_use' else ():
            self.assertTrue(self.known(name).older)
        self.flip(self.sound[1], 4)
        checksums = {
            name: digest for name, (_digests, digest) in self.learnt.items()
        }
        self.node.run()
        code, verdicts = self.verdicts()
        self.assertEqual(exit_codes.CORRUPTION, code)
        self.assertEqual(
            [Verdict.GOOD] * 3,
            [verdicts[n] for n in (*self.sound[::2], self.suspect)],
        )
        harmful = (Verdict.CORRUPT, Verdict.DIFFERS)
        for name in (self.sound[1], self.bad_one):
            self.assertIn(verdicts[name], harmful)
        for name, digest in checksums.items():
            with open(self.node.base_path(name) + '.sha1', 'rb') as file:
                self.assertEqual(digest, file.read())

    def test_ledgers_alone_bring_the_checksums_back(self) -> None:
        self.fill()
        self.move('cp', os.path.join(self.temporary, 'new'))
        for name in self.learnt:
            os.unlink(self.node.base_path(name) + '.sha1')
        code, verdicts = self.verdicts()
        self.assertEqual(exit_codes.CORRUPTION, code)
        self.assertEqual(
            [self.bad_one],
            [name for name in verdicts if verdicts[name] is not Verdict.GOOD],
        )
        self.assert_nothing_was_overwritten()


class StateTest(MovedTestCase):
    """What the state remembers comes along while it can be told whose."""

    def test_in_a_cache_that_was_moved_it_is_of_other_files(self) -> None:
        """So that what one was found to be does not stick to another."""
        self.fill()
        self.move('cp', os.path.join(self.temporary, 'new'))
        os.unlink(self.node.layout.ledger(self.bad_one))
        report = self.node.make_pass().preview()
        file = self.file_of(report, self.bad_one)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        # But its checksum says so when it is read.
        for _pass in range(2):
            _code, verdicts = self.verdicts()
        self.assertIn(
            verdicts[self.bad_one], (Verdict.CORRUPT, Verdict.DIFFERS)
        )

    def test_after_the_first_pass_it_is_of_those_that_are_there(self) -> None:
        self.fill()
        self.move('cp', os.path.join(self.temporary, 'new'))
        self.node.run()
        self.node.run()
        os.unlink(self.node.layout.ledger(self.bad_one))
        report = self.node.make_pass().preview()
        file = self.file_of(report, self.bad_one)
        self.assertIs(Verdict.CORRUPT, file.checksum)
        os.unlink(self.node.layout.ledger(self.suspect))
        for _pass in range(2):
            self.node.run()
        self.assertTrue(self.ledger(self.suspect).suspect)


@ddt.ddt
class FileSystemTest(MovedTestCase):
    """To another file system, and back. Takes root, and loop devices."""

    MAKE: ClassVar = {
        'ext4': ('mkfs.ext4', '-q', '-F'),
        'ext2': ('mkfs.ext2', '-q', '-F', '-I', '128'),
        'xfs': ('mkfs.xfs', '-q', '-f'),
    }

    @ddt.data(
        ('cp', 'ext4'),
        ('mv', 'ext4'),
        ('rsync', 'xfs'),
        ('mv', 'xfs'),
        ('tar', 'xfs'),
        # Which has no birth times, but generations.
        ('cp', 'ext2'),
        ('mv', 'ext2'),
    )
    @ddt.unpack
    def test_nothing_is_lost(self, way: str, kind: str) -> None:
        point = self.mount_new(kind, *self.MAKE[kind])
        self.check(way, os.path.join(point, 'instances'))

    @ddt.data('cp', 'rsync', 'tar', 'mv')
    def test_nothing_is_lost_where_there_are_no_birth_times(
        self, way: str
    ) -> None:
        source = os.path.join(self.temporary, 'source')
        os.mkdir(source)
        point = os.path.join(self.temporary, 'new')
        self.mount_without_birth_times(source, point)
        self.check(way, os.path.join(point, 'instances'))

    def test_nothing_is_lost_between_two_that_have_none(self) -> None:
        for name in ('one', 'two'):
            source = os.path.join(self.temporary, f'{name} source')
            os.mkdir(source)
            self.mount_without_birth_times(
                source, os.path.join(self.temporary, name)
            )
        self.node = nodes.Node(os.path.join(self.temporary, 'one', 'cache'))
        self.check('cp', os.path.join(self.temporary, 'two', 'cache'))
