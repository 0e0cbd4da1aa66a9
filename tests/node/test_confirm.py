# SPDX-License-Identifier: Apache-2.0

"""A person has evidence: the command confirm, as it is typed."""

from collections.abc import Callable
import contextlib
import dataclasses
import hashlib
import json
import os
import random
from typing import Any

import ddt

from nova_imagecache.cache import states
from nova_imagecache.content import blockmap
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache import hook
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import confirmation
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import one_file
from tests.support import base
from tests.support import nodes
from tests.support import processes
from tests.support import scrubbing
from tests.support import shell

BLOCK = 16 * base.KIB
GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
DOUBTS = ('suspect', 'rebaselined', 'differs', 'corrupt_without_digests')
Verdict = knowledge.Verdict


class ConfirmTestCase(shell.ShellTestCase, scrubbing.ScrubTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(blockmap, 'BLOCK_SIZE', BLOCK)
        self.node.configure(checksum=True, remove_unused=False)
        self.data = random.Random(1).randbytes(4 * BLOCK - 99)
        self.name = self.node.add_image('image', data=self.data)
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
        self.assertEqual((0, 'good'), (code, row['checksum']))
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


@ddt.ddt
class RightTest(ConfirmTestCase):
    @ddt.data(*DOUBTS)
    def test_the_right_sha1_ends_each_doubt(self, doubt: str) -> None:
        getattr(self, doubt)()
        self.assertTrue(self.is_in_doubt(), doubt)
        code, stdout, stderr = self.confirm('--sha1', self.sha1())
        self.assertEqual(0, code, stderr)
        self.assertIn('good', stdout)
        self.assert_beyond_doubt()

    def is_in_doubt(self) -> bool:
        code, row = self.found()
        return (
            code != 0
            or 'suspect' in row['reason']
            or ('rebaselined' in row['reason'])
        )

    @ddt.data(*DOUBTS)
    def test_a_file_with_the_same_bytes_is_as_good(self, doubt: str) -> None:
        getattr(self, doubt)()
        with open(self.path, 'rb') as file:
            data = file.read()
        with open(self.evidence, 'wb') as file:
            file.write(data)
        code, _stdout, stderr = self.confirm('--file', self.evidence)
        self.assertEqual(0, code, stderr)
        self.assert_beyond_doubt()

    @ddt.data(*DOUBTS)
    def test_the_state_forgets_it_too(self, doubt: str) -> None:
        getattr(self, doubt)()
        self.confirm('--sha1', self.sha1())
        sighting = self.remembered()
        self.assertEqual(
            (True, False, None, None),
            (
                sighting.digested,
                sighting.suspect,
                sighting.rebaselined,
                sighting.damage,
            ),
        )
        # So it does not come back from there when the ledger is lost.
        os.unlink(self.node.layout.ledger(self.name))
        self.read_twice()
        self.assert_beyond_doubt()

    @ddt.data(*DOUBTS)
    def test_what_decays_then_is_found_by_the_new_digests(
        self, doubt: str
    ) -> None:
        getattr(self, doubt)()
        self.confirm('--sha1', self.sha1())
        self.flip(1)
        self.assertEqual(3, self.run_command('verify')[0])
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))

    def test_one_that_was_never_read_is_good_from_then_on(self) -> None:
        code, _stdout, stderr = self.confirm('--sha1', self.sha1())
        self.assertEqual(0, code, stderr)
        self.assert_beyond_doubt()

    def test_capitals_and_white_space_make_no_difference(self) -> None:
        self.suspect()
        code, _stdout, stderr = self.confirm(
            '--sha1', f' {self.sha1().upper()}\n'
        )
        self.assertEqual(0, code, stderr)
        self.assert_beyond_doubt()

    def test_a_path_will_do_for_the_name(self) -> None:
        self.suspect()
        code, _stdout, stderr = self.run_command(
            'confirm', self.path, '--sha1', self.sha1()
        )
        self.assertEqual(0, code, stderr)
        self.assert_beyond_doubt()

    def test_the_image_is_not_forgotten(self) -> None:
        self.suspect()
        file = self.file(self.name)
        job = one_file.Job(file, self.known(self.name), image='an image')
        one_file.scrub(
            job,
            one_file.Method('xxh3_128', self.means, self.node.clock),
        )
        self.confirm('--sha1', self.sha1())
        self.assertEqual('an image', self.ledger(self.name).image)


@ddt.ddt
class WrongTest(ConfirmTestCase):
    @ddt.data('read_twice', *DOUBTS)
    def test_a_wrong_sha1_changes_nothing(self, doubt: str) -> None:
        getattr(self, doubt)()
        before = self.all_records()
        code, _stdout, stderr = self.confirm('--sha1', 'e' * 40)
        self.assertEqual(3, code)
        self.assertIn(f'its SHA-1 is {self.sha1()} and not {"e" * 40}', stderr)
        self.assertIn('nothing was changed', stderr)
        self.assertEqual(before, self.all_records())

    def test_nor_does_a_file_with_other_bytes(self) -> None:
        self.suspect()
        before = self.all_records()
        with open(self.evidence, 'wb') as file:
            file.write(self.data[:-1])
        code, _stdout, stderr = self.confirm('--file', self.evidence)
        self.assertEqual(3, code)
        self.assertIn('nothing was changed', stderr)
        self.assertEqual(before, self.all_records())

    def test_one_that_was_never_read_gets_no_checksum(self) -> None:
        code, _stdout, _stderr = self.confirm('--sha1', 'e' * 40)
        self.assertEqual(3, code)
        self.assertFalse(os.path.exists(self.sidecar))
        self.assertIsNone(self.known(self.name).ledger)

    def test_that_of_the_earlier_file_condemns_one_that_differs(
        self,
    ) -> None:
        self.node.add_overlay(GUEST, self.name)
        self.differs()
        conf = base.make_conf(instances_path=self.node.layout.instances)
        manager = hook.ImageCacheManager(conf)
        earlier = hashlib.sha1(self.data).hexdigest()
        digests = self.all_records()[1].partition(b'\n')[2]
        self.assertRaises(hook.Error, manager.damage_of, self.name)
        code, stdout, _stderr = self.confirm('--sha1', earlier)
        self.assertEqual(3, code)
        self.assertIn('corrupt', stdout)
        self.assertEqual((3, 'corrupt'), self.short_found())
        self.assertEqual({2: scrubbing.CORRUPT}, self.bad(self.name))
        self.assertEqual(earlier, self.read_sidecar())
        self.assertEqual(digests, self.all_records()[1].partition(b'\n')[2])
        # The gate is shut, and the state knows it.
        self.assertEqual('corrupt', manager.damage_of(self.name))
        damage = self.remembered().damage
        assert damage is not None
        self.assertEqual('corrupt', damage.verdict)
        # And it stays so when it is read again.
        self.assertEqual(3, self.run_command('verify')[0])
        self.assertEqual((3, 'corrupt'), self.short_found())

    def test_so_does_one_of_which_nothing_but_a_checksum_was_left(
        self,
    ) -> None:
        earlier = hashlib.sha1(self.data[:-1] + b'x').hexdigest()
        self.write_sidecar(earlier)
        nodes.write_after(self.path, self.data, self.sidecar)
        self.read_twice()
        self.assertEqual((3, 'differs'), self.short_found())
        self.assertEqual(3, self.confirm('--sha1', earlier)[0])
        for _pass in range(2):
            self.assertEqual((3, 'corrupt'), self.short_found())
            self.node.run()
        self.assertEqual(earlier, self.read_sidecar())

    def short_found(self) -> tuple[int, str]:
        code, row = self.found()
        return code, row['checksum']


@ddt.ddt
class NotNowTest(ConfirmTestCase):
    """It cannot be done, and nothing is changed."""

    def assert_refused(self, *words: str) -> None:
        before = self.all_records()
        code, _stdout, stderr = self.confirm('--sha1', self.sha1())
        self.assertEqual(1, code)
        for word in words:
            self.assertIn(word, stderr)
        self.assertEqual(before, self.all_records())

    def test_who_has_the_turn_is_named_and_since_when_it_is_silent(
        self,
    ) -> None:
        self.suspect()
        self.patch(confirmation, '_PATIENCE_SECONDS', 0)
        now = self.node.clock()
        activities.save(
            self.node.layout,
            activities.Activity('a-host', now, now, current=self.name),
        )
        other = processes.OtherScrub(self.node.layout.instances)
        self.useFixture(other)
        self.assert_refused(
            'a-host', f'is at {self.name}', 'has noted progress'
        )

    def test_while_its_lock_is_held_it_is_left_alone(self) -> None:
        self.suspect()
        self.useFixture(
            processes.NovaProcess(self.node.layout.locks, self.name)
        )
        self.assert_refused('lock')

    def while_reading(self, act: Callable[[], object]) -> None:
        """Do something before the outcome is kept."""
        real = hashing.WholeFile.hexdigest

        def hexdigest(whole: hashing.WholeFile) -> str | None:
            act()
            return real(whole)

        self.patch(hashing.WholeFile, 'hexdigest', hexdigest)

    def test_a_file_that_is_replaced_meanwhile_is_not_confirmed(
        self,
    ) -> None:
        self.suspect()
        sha1 = self.sha1()
        self.while_reading(
            lambda: nodes.write_after(self.path, b'other', self.sidecar)
        )
        before = self.all_records()[:3]
        code, _stdout, stderr = self.confirm('--sha1', sha1)
        self.assertEqual(1, code)
        self.assertIn('another file has taken its place', stderr)
        self.assertEqual(before, self.all_records()[:3])

    def test_nor_is_one_that_goes_meanwhile(self) -> None:
        self.suspect()
        sha1 = self.sha1()
        self.while_reading(lambda: os.unlink(self.path))
        code, _stdout, stderr = self.confirm('--sha1', sha1)
        self.assertEqual(1, code)
        self.assertIn('it has gone', stderr)

    def test_what_somebody_else_learns_meanwhile_is_not_overwritten(
        self,
    ) -> None:
        self.suspect()
        learnt = dataclasses.replace(self.ledger(self.name), image='other')

        def learn() -> None:
            with learnt.prepared(self.file(self.name)) as put:
                put()

        self.while_reading(learn)
        code, _stdout, stderr = self.confirm('--sha1', self.sha1())
        self.assertEqual(1, code)
        self.assertIn('its records have changed meanwhile', stderr)
        self.assertEqual(learnt, self.ledger(self.name))

    def test_a_ledger_of_a_newer_release_is_left_alone(self) -> None:
        self.read_twice()
        path = self.node.layout.ledger(self.name)
        with open(path, 'rb') as file:
            data = file.read()
        version = ledgers._FORMAT.version
        with open(path, 'wb') as file:
            file.write(
                data.replace(
                    b'"version": %d' % version,
                    b'"version": %d' % (version + 1),
                )
            )
        self.assert_refused('newer release')

    def test_a_block_that_cannot_be_read_is_told(self) -> None:
        self.suspect()
        real = hashing.read_blocks

        # Mocked: a disk that fails to order needs root and a block device.
        def read_blocks(*args: Any) -> Any:
            for reading in real(*args):
                yield hashing.BlockReading(
                    reading.index,
                    reading.length,
                    error=OSError(5, os.strerror(5)),
                )

        self.patch(hashing, 'read_blocks', read_blocks)
        self.assert_refused('Input/output error')


@ddt.ddt
class UsageTest(ConfirmTestCase):
    @ddt.data(
        (),
        ('--sha1', 'xyz'),
        ('--sha1', 'f' * 39),
        ('--sha1', 'f' * 41),
        ('--sha1', 'f' * 40, '--file', '/dev/null'),
    )
    def test_evidence_is_one_sha1_or_one_file(
        self, argv: tuple[str, ...]
    ) -> None:
        code, _stdout, _stderr = self.confirm(*argv)
        self.assertEqual(2, code)
        self.assertFalse(os.path.exists(self.sidecar))

    def test_a_name_that_is_not_there_is_told(self) -> None:
        code, _stdout, stderr = self.run_command(
            'confirm', 'e' * 40, '--sha1', 'f' * 40
        )
        self.assertEqual(1, code)
        self.assertIn(f'there is no file {"e" * 40}', stderr)

    def test_what_is_no_base_file_cannot_be_confirmed(self) -> None:
        self.node.add_base('something')
        code, _stdout, stderr = self.run_command(
            'confirm', 'something', '--sha1', 'f' * 40
        )
        self.assertEqual(1, code)
        self.assertIn('is no base file', stderr)

    @ddt.data('no such file', '.')
    def test_evidence_that_cannot_be_read_is_told(self, path: str) -> None:
        code, _stdout, stderr = self.confirm(
            '--file', os.path.join(self.temporary, path)
        )
        self.assertEqual(1, code)
        self.assertIn('cannot be read', stderr)

    def lines(self, *argv: str, code: int) -> list[dict[str, Any]]:
        got, stdout, stderr = self.confirm(*argv, '-f', 'json')
        self.assertEqual(code, got, stderr)
        lines = [json.loads(line) for line in stdout.splitlines()]
        return [line for line in lines if 'progress' not in line]

    def test_as_json_it_is_the_file_and_a_summary(self) -> None:
        self.suspect()
        row, summary = self.lines('--sha1', 'e' * 40, code=3)
        self.assertEqual(shell.KEYS, list(row))
        self.assertEqual({'summary': {'confirmed': False}}, summary)
        row, summary = self.lines('--sha1', self.sha1(), code=0)
        self.assertEqual((self.name, 'good'), (row['name'], row['checksum']))
        self.assertEqual({'summary': {'confirmed': True}}, summary)

    def test_as_json_one_that_was_condemned_is_not_confirmed(self) -> None:
        self.differs()
        earlier = hashlib.sha1(self.data).hexdigest()
        row, summary = self.lines('--sha1', earlier, code=3)
        self.assertEqual('corrupt', row['checksum'])
        self.assertEqual({'summary': {'confirmed': False}}, summary)
