# SPDX-License-Identifier: Apache-2.0

"""What a newer release has written is left alone, and not believed lost."""

import dataclasses
import errno
import json
import os
from typing import Any

from nova_imagecache.cache import records
from nova_imagecache.cache import states
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache.passes import decide
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities
from tests.support import base
from tests.support import nodes

Verdict = knowledge.Verdict
WORDS = 'made by a newer release'


class NewerTestCase(nodes.NodeTestCase):
    """A cache in which everything is known of one base file."""

    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True, remove_unused=False)
        self.name = self.node.add_image('image', age=25 * base.HOUR)
        self.path = self.node.base_path(self.name)
        for _pass in range(2):
            self.node.run()
        self.ledger = self.node.layout.ledger(self.name)

    def age_us(self, path: str) -> bytes:
        """Have a release of tomorrow write a record; give its bytes."""
        with open(path, 'rb') as file:
            line = json.loads(file.readline())
            payload = file.read()
        line['version'] += 1
        line['sealed']['body']['of_tomorrow'] = True
        data = json.dumps(line).encode() + b'\n' + payload
        with open(path, 'wb') as file:
            file.write(data)
        return data

    def read(self, path: str) -> bytes:
        with open(path, 'rb') as file:
            return file.read()

    def row(self, report: reports.Report) -> reports.FileReport:
        return self.file_of(report, self.name)


class UnreadTest(NewerTestCase):
    def test_a_ledger_that_cannot_be_read_is_not_removed(self) -> None:
        # Its file and its checksum are gone.
        os.unlink(self.path)
        os.unlink(f'{self.path}.sha1')
        real = os.open

        # Mocked: a disk that fails in just that place.
        def open_or_fail(path: Any, *args: Any, **kwargs: Any) -> int:
            if path == self.ledger:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(path, *args, **kwargs)

        with base.patched(os, 'open', open_or_fail):
            self.node.run()
        self.assertTrue(os.path.exists(self.ledger))

    def test_one_that_can_goes_a_day_after_its_file(self) -> None:
        os.unlink(self.path)
        os.unlink(f'{self.path}.sha1')
        self.node.run()
        self.node.clock.advance(23 * base.HOUR)
        self.node.run()
        self.assertTrue(os.path.exists(self.ledger))
        self.node.clock.advance(2 * base.HOUR)
        self.node.run()
        self.assertFalse(os.path.exists(self.ledger))

    def test_what_is_back_within_that_day_is_known(self) -> None:
        nodes.flip_bit(self.path)
        self.node.run()
        os.rename(self.path, f'{self.temporary}/gone')
        os.unlink(f'{self.path}.sha1')
        self.node.run()
        os.rename(f'{self.temporary}/gone', self.path)
        row = self.row(self.node.run())
        self.assertIs(Verdict.CORRUPT, row.checksum)


class LedgerTest(NewerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.data = self.age_us(self.ledger)

    def assert_left_alone(self) -> None:
        self.assertEqual(self.data, self.read(self.ledger))
        self.assertFalse(os.path.exists(f'{self.ledger}.damaged'))

    def test_a_newer_ledger_is_neither_replaced_nor_set_aside(self) -> None:
        for _pass in range(3):
            report = self.node.run()
            self.assertIn(WORDS, '; '.join(report.problems))
            self.assert_left_alone()

    def test_the_file_is_compared_with_its_checksum_all_the_same(
        self,
    ) -> None:
        self.assertIs(Verdict.GOOD, self.verify())
        nodes.flip_bit(self.path)
        self.assertIs(Verdict.CORRUPT, self.verify())
        self.assert_left_alone()

    def verify(self) -> Verdict:
        report = self.node.make_pass().verify_now([self.name])
        return self.row(report).checksum

    def test_it_is_left_to_that_release_to_read_the_file(self) -> None:
        # What we read could not be kept, and would be read again each time.
        self.node.clock.advance(30 * base.DAY)
        self.assertIs(Verdict.UNKNOWN, self.row(self.node.run()).checksum)
        report = self.node.make_pass().preview()
        self.assertEqual(0, report.coverage.queue)

    def test_without_a_checksum_nothing_is_made_the_baseline(self) -> None:
        os.unlink(f'{self.path}.sha1')
        nodes.flip_bit(self.path)
        for _reading in range(2):
            self.assertIs(Verdict.UNKNOWN, self.verify())
        self.assertFalse(os.path.exists(f'{self.path}.sha1'))
        self.assert_left_alone()

    def test_the_file_does_not_go(self) -> None:
        for checksum in (True, False):
            self.node.configure(remove_unused=True, checksum=checksum)
            self.node.set_age(self.name, 25 * base.HOUR)
            row = self.row(self.node.run())
            self.assertIs(decide.Action.KEEP, row.action)
            self.assertIn(WORDS, row.reason)
            self.assertIn(self.name, self.node.files())
        self.assert_left_alone()

    def test_a_file_in_the_trash_is_not_deleted(self) -> None:
        os.unlink(self.ledger)
        self.node.configure(remove_unused=True, checksum=False)
        self.node.set_age(self.name, 25 * base.HOUR)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        (trashed,) = (
            name
            for name in os.listdir(self.node.layout.trash)
            if name.startswith(self.name) and not name.endswith('.sha1')
        )
        path = os.path.join(self.node.layout.trash, f'{trashed}.ledger')
        with open(path, 'wb') as file:
            file.write(self.data)
        self.node.clock.advance(2 * base.HOUR)
        (row,) = self.node.run().trash
        self.assertIs(decide.Action.KEEP, row.action)
        self.assertIn(WORDS, row.reason)
        self.assertEqual({self.name}, self.node.trash())
        self.assertEqual(self.data, self.read(path))

    def test_the_ledger_of_a_file_that_is_gone_stays(self) -> None:
        for path in (self.path, f'{self.path}.sha1'):
            os.unlink(path)
        self.node.run()
        self.assert_left_alone()


class StateTest(NewerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.data = self.age_us(self.node.layout.state)
        self.node.configure(remove_unused=True)

    def test_a_newer_state_keeps_everything(self) -> None:
        self.node.set_age(self.name, 25 * base.HOUR)
        report = self.node.run()
        self.assertIn(WORDS, '; '.join(report.vetoes))
        self.assertIn(WORDS, '; '.join(report.problems))
        self.assertIn(self.name, self.node.files())

    def test_a_newer_state_is_neither_replaced_nor_set_aside(self) -> None:
        path = self.node.layout.state
        self.node.run()
        states.note_use(self.node.layout, self.name, self.node.clock())
        self.assertRaises(
            errors.Newer,
            states.amend,
            self.node.layout,
            lambda state: state,
        )
        self.assertEqual(self.data, self.read(path))
        self.assertFalse(os.path.exists(f'{path}.damaged'))


class OtherRecordsTest(NewerTestCase):
    def test_a_newer_pin_holds(self) -> None:
        self.node.pin(self.name)
        path = os.path.join(self.node.layout.pins, self.name)
        data = self.age_us(path)
        self.node.configure(remove_unused=True)
        self.node.set_age(self.name, 25 * base.HOUR)
        self.assertIn('pinned', self.row(self.node.run()).reason)
        self.assertEqual(data, self.read(path))

    def test_a_newer_note_of_a_scrub_holds_nobody_up(self) -> None:
        # What a scrub does is worth nothing once another one is at work.
        now = self.node.clock()
        activity = activities.Activity('a-host', now, now)
        activities.save(self.node.layout, activity)
        self.age_us(self.node.layout.scrub)
        self.assertIsNone(activities.load(self.node.layout))
        activities.save(self.node.layout, activity)
        self.assertEqual(activity, activities.load(self.node.layout))


@dataclasses.dataclass
class Body:
    """A body, in its third version."""

    number: int
    text: str


class ConversionTest(nodes.NodeTestCase):
    """What an older release has written is converted, step by step."""

    def load(self, converters: dict[int, records.Convert]) -> Body | None:
        path = os.path.join(self.node.layout.own, 'record')
        records.Format('test', 1, dict).save(
            self.node.layout, path, {'number': 1}
        )
        return records.Format('test', 3, Body, converters).load(path)

    def test_each_step_leads_to_the_next_version(self) -> None:
        found = self.load(
            {
                1: lambda body: body | {'number': body['number'] + 1},
                2: lambda body: body | {'text': f'was {body["number"]}'},
            }
        )
        self.assertEqual(Body(2, 'was 2'), found)

    def test_a_version_that_nobody_can_convert_is_damaged(self) -> None:
        self.assertRaises(
            errors.Damaged, self.load, {2: lambda body: body | {'text': ''}}
        )

    def test_a_body_that_cannot_be_converted_is_damaged(self) -> None:
        self.assertRaises(
            errors.Damaged,
            self.load,
            {1: lambda body: body['nothing'], 2: lambda body: body},
        )
