# SPDX-License-Identifier: Apache-2.0

"""The command confirm, where it cannot be done or makes no sense."""

from collections.abc import Callable
import dataclasses
import hashlib
import json
import os
from typing import Any

import ddt

from nova_imagecache.content import ledgers
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import turns
from tests.support import confirming
from tests.support import nodes
from tests.support import processes
from tests.support import shell


@ddt.ddt
class NotNowTest(confirming.ConfirmTestCase):
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
        self.patch(turns, '_PATIENCE_SECONDS', 0)
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

    def test_one_misreading_condemns_nothing(self) -> None:
        self.read_twice()
        real = hashing.WholeFile.hexdigest
        found = iter(['e' * 40])

        # Mocked: a cable or a memory that flips a bit on the way.
        def hexdigest(whole: hashing.WholeFile) -> str | None:
            return next(found, real(whole))

        self.patch(hashing.WholeFile, 'hexdigest', hexdigest)
        self.assert_refused('it came out differently when it was read again')


@ddt.ddt
class UsageTest(confirming.ConfirmTestCase):
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
        got, stdout, stderr = self.confirm(*argv, '--progress', 'json')
        self.assertEqual(code, got, stderr)
        lines = [json.loads(line) for line in stdout.splitlines()]
        return [line for line in lines if 'progress' not in line]

    def test_as_json_it_is_the_file_and_a_summary(self) -> None:
        self.suspect()
        row, summary = self.lines('--sha1', 'e' * 40, code=3)
        self.assertEqual(shell.READ_KEYS, list(row))
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
