# SPDX-License-Identifier: Apache-2.0

"""What random histories of files and records have found, made plain."""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import errno
import os
import random
import shutil
from typing import Any

import ddt

from nova_imagecache.cache import states
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from nova_imagecache.scrub import one_file
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import recalling
from nova_imagecache.scrub import sources
from tests.support import base
from tests.support import nodes
from tests.support import scrubbing

BLOCK = scrubbing.BLOCK
COUNT = scrubbing.COUNT
SIZE = scrubbing.SIZE
CORRUPT = scrubbing.CORRUPT
DOUBTFUL = scrubbing.DOUBTFUL
Verdict = scrubbing.Verdict


def _no_space(*args: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Killed(BaseException):
    """The process ends here."""


class AnotherFileTest(scrubbing.OneFileTestCase):
    """Files that take the place of one of which something is known."""

    def setUp(self) -> None:
        super().setUp()
        self.record = self.node.layout.ledger(self.name)

    def replace(self, data: bytes | None = None) -> None:
        """Put another file under the name, by default the same image."""
        with open(self.path + '.part', 'wb') as file:
            file.write(self.data if data is None else data)
        os.rename(self.path + '.part', self.path)

    def copy(self) -> None:
        shutil.copy2(self.path, self.path + '.part')
        os.rename(self.path + '.part', self.path)

    def test_a_good_image_ends_the_doubt_that_a_bad_copy_raised(self) -> None:
        self.scrub_file()
        self.flip(2)
        self.copy()
        self.assertIs(Verdict.DIFFERS, self.scrub_file())
        self.replace()
        self.assertIs(Verdict.GOOD, self.scrub_file())

    def test_a_copy_of_one_that_differs_differs_as_well(self) -> None:
        self.scrub_file()
        self.flip(2)
        for _copy in range(3):
            self.copy()
            self.assertIs(Verdict.DIFFERS, self.scrub_file())
        self.assertEqual({2: CORRUPT}, self.bad_blocks())

    def test_a_checksum_beside_digests_that_were_not_sure_accuses_nobody(
        self,
    ) -> None:
        self.write_sidecar(self.sha1())
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(4))
        self.go_on()
        self.replace(random.Random(8).randbytes(SIZE))
        self.assertIs(Verdict.UNKNOWN, self.scrub_file())
        # One of the two images is bad, and nobody knows which.
        self.assertIs(Verdict.DIFFERS, self.scrub_file())

    def test_one_that_is_longer_has_a_ledger_that_can_be_read(self) -> None:
        self.scrub_file()
        self.replace(self.data + bytes(4 * BLOCK))
        self.scrub_file(checkpoint_seconds=0, **self.stop_after(COUNT + 3))
        self.go_on()
        self.assertTrue(self.ledger(self.name).differs)
        self.assertIs(Verdict.DIFFERS, self.scrub_file())


class AnewTest(scrubbing.ScrubTestCase):
    """Swap that was made anew."""

    def setUp(self) -> None:
        super().setUp()
        self.name = 'swap_1'
        self.path = self.node.base_path(self.name)
        self.sidecar = self.path + '.sha1'
        self.make(1)
        self.scrub(self.name)

    def make(self, seed: int) -> None:
        data = random.Random(seed).randbytes(3 * BLOCK)
        path = self.node.add_base(f'{self.name}.part', data)
        os.rename(path, self.path)

    def test_a_checksum_without_the_ledger_is_not_left_behind(self) -> None:
        old = self.read_sidecar()
        self.make(2)
        real = os.rename

        def rename(source: str, target: str) -> None:
            if target == self.node.layout.ledger(self.name):
                raise Killed
            real(source, target)

        with base.patched(os, 'rename', rename):
            self.assertRaises(Killed, self.scrub, self.name)
        self.assertFalse(os.path.exists(self.sidecar))
        finding = self.scrub(self.name)
        self.assertIn('rebaselined', finding.note)
        self.assertNotEqual(old, self.read_sidecar())


@ddt.ddt
class RecordsFailTest(scrubbing.OneFileTestCase):
    """Records that cannot be kept, or are lost."""

    def setUp(self) -> None:
        super().setUp()
        self.record = self.node.layout.ledger(self.name)

    def read(self, **method: Any) -> knowledge.Finding:
        """Scrub the file as a queue does, with what the state remembers."""
        layout, now = self.node.layout, self.node.clock()
        file = self.file(self.name)
        state = states.sight(layout, now, [file])
        known = recalling.entry_of(file, state).known
        job = queues.job_of(file, known, state, now, 'host')
        finding = one_file.scrub(
            job,
            one_file.Method('xxh3_128', self.means, self.node.clock, **method),
        )
        if finding.history is not None:
            queues.note_histories(layout, {file: finding.history}, state, now)
        return finding

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Have no space for records of the file."""
        real = os.rename

        def rename(source: str, target: str) -> None:
            if target in (self.record, self.sidecar):
                _no_space()
            real(source, target)

        with base.patched(os, 'rename', rename):
            yield

    @ddt.data((2,), range(COUNT))
    def test_damage_that_was_never_kept_is_no_lost_ledger(
        self, bad: Iterable[int]
    ) -> None:
        """Of one block, and of so many that the file is left alone."""
        with self.full(), self.failing_reads(*bad):
            self.read()
        self.assertFalse(os.path.exists(self.record))
        self.assertIs(
            soundness.Soundness.BAD,
            soundness.of(self.file(self.name)).soundness,
        )
        with self.failing_reads(*bad):
            finding = self.read()
        self.assertIs(Verdict.UNREADABLE, finding.verdict)
        self.assertNotIn('rebaselined', finding.note)
        # From now on there is one.
        os.unlink(self.record)
        with self.failing_reads(*bad):
            self.assertIn('rebaselined', self.read().note)

    def test_beside_a_checksum_no_ledger_is_lost_that_never_was(self) -> None:
        with open(self.sidecar, 'w') as sidecar:
            sidecar.write(self.sha1())
        with self.full():
            self.assertIs(Verdict.GOOD, self.read().verdict)
        self.assertIs(
            soundness.Soundness.SOUND,
            soundness.of(self.file(self.name)).soundness,
        )
        os.unlink(self.sidecar)
        self.assertNotIn('rebaselined', self.read().note)

    def test_one_that_cannot_be_read_is_missed_when_it_is_lost(self) -> None:
        self.scrub_file()

        # Mocked: a disk that fails for a moment, all of it.
        def fail(*args: Any) -> Any:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with (
            base.patched(ledgers.Ledger, 'load', fail),
            base.patched(sources, 'opened', fail),
        ):
            self.assertIs(Verdict.UNREADABLE, self.read().verdict)
        os.unlink(self.record)
        os.unlink(self.sidecar)
        self.assertIn('rebaselined', self.read().note)

    def test_what_was_never_kept_is_not_lost(self) -> None:
        with self.full():
            self.assertTrue(self.read().skipped)
        self.assertIs(
            soundness.Soundness.SOUND,
            soundness.of(self.file(self.name)).soundness,
        )
        self.assertNotIn('rebaselined', self.read().note)

    def test_one_that_was_unreadable_is_so_when_its_ledger_is_lost(
        self,
    ) -> None:
        with self.failing_reads(2):
            self.assertIs(Verdict.UNREADABLE, self.read().verdict)
        os.unlink(self.record)
        self.read(**self.stop_after(1))
        self.go_on()
        self.assertIs(
            Verdict.UNREADABLE, self.known(self.name).finding.verdict
        )
        # Whatever the disk put there.
        finding = self.read()
        self.assertIn('suspect', finding.note)
        self.assertEqual(
            dict.fromkeys(range(COUNT), DOUBTFUL), self.bad_blocks()
        )

    @ddt.data(True, False)
    def test_one_that_differs_does_so_when_its_ledger_is_lost(
        self, with_checksum: bool
    ) -> None:
        self.read()
        self.flip(2)
        shutil.copy2(self.path, self.path + '.part')
        os.rename(self.path + '.part', self.path)
        self.assertIs(Verdict.DIFFERS, self.read().verdict)
        os.unlink(self.record)
        if not with_checksum:
            os.unlink(self.sidecar)
        with self.failing_reads(5):
            self.assertIs(Verdict.DIFFERS, self.read().verdict)
        self.assertIs(Verdict.DIFFERS, self.read().verdict)
        self.flip(2)
        # If there is anything to compare it with.
        verdict = Verdict.GOOD if with_checksum else Verdict.DIFFERS
        self.assertIs(verdict, self.read().verdict)

    def test_the_line_of_a_ledger_stays_until_there_is_another(self) -> None:
        self.scrub_file()
        os.unlink(self.sidecar)
        nodes.flip_bit(self.record, os.path.getsize(self.record) - 1)
        self.flip(2)
        real = os.rename

        def rename(source: str, target: str) -> None:
            if target in (self.record, self.sidecar):
                raise Killed
            real(source, target)

        with base.patched(os, 'rename', rename):
            self.assertRaises(Killed, self.scrub_file)
        self.assertTrue(os.path.exists(self.record + '.damaged'))
        self.assertIs(Verdict.CORRUPT, self.scrub_file())
