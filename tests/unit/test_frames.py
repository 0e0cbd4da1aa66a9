# SPDX-License-Identifier: Apache-2.0

"""What a host and the process of a pass hear, whatever is sent."""

import collections
import logging
import socket
import struct
import threading
from typing import Any

import hypothesis
from hypothesis import strategies
import msgspec

from nova_imagecache.apart import frames
from nova_imagecache import clocks
from nova_imagecache import codes
from nova_imagecache.content import knowledge
from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from nova_imagecache import names
from nova_imagecache.passes import decide
from nova_imagecache.passes import reports
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import background
from nova_imagecache.scrub import schedule
from nova_imagecache.witnesses import exposure
from nova_imagecache.witnesses import instances
from nova_imagecache.witnesses import vetoing
from tests.support import base

#: Of a file whose name is not UTF-8.
ODD = 'guest-\udcff'


def problem(
    text: str, subject: str = '', guests: tuple[str, ...] = ()
) -> codes.Problem:
    return codes.Problem(codes.Code.CLOCK, text, subject, guests)


GUESTS = tuple(
    instances.Guest(
        f'guest-{number}',
        ODD,
        {'f' * 40: 'image'},
        frozenset({64, 128}),
        frozenset({1}),
        'host',
        built=True,
    )
    for number in range(2 * frames.PART + 1)
)

FILE = reports.FileReport(
    name='f' * 40,
    kind=names.Kind.ORIGINAL,
    size=2**40,
    allocated=4096,
    users=(ODD, 'other'),
    image='image',
    age_seconds=7,
    checksum=knowledge.Verdict.CORRUPT,
    action=decide.Action.KEEP,
    reason='why',
    bad=(ledgers.BadRange(0, 4096, ledgers.Damage.CORRUPT),),
    exposures=(
        exposure.Exposure(
            ODD,
            'disk',
            (exposure.Extent(0, 9, exposure.Effect.READS_THROUGH),),
        ),
    ),
    suspect=True,
    answer=soundness.Soundness.BAD,
    outdated=('other',),
    used=True,
    readers=(ODD,),
    vetoes=(problem('a sentence'),),
)

REPORT = reports.Report(
    cache_dir='/c',
    files=(FILE,) * (frames.PART + 1),
    trash=(FILE,) * 2,
    vetoes=(problem('a'),),
    withheld=(problem('b'),),
    obstacles=(
        vetoing.Veto(
            vetoing.Reason.UNREADABLE, ODD, 'it is', frozenset({'swap_1'})
        ),
        vetoing.Veto(vetoing.Reason.CLOCK, 's', 'p'),
    ),
    vetoed_seconds=1.5,
    removed_seconds=0.1 + 0.2,
    problems=(problem('c', ODD, ('g', ODD)),),
    notes=(problem('d'),),
    checksums=True,
    coverage=schedule.Coverage(files=3, oldest=1.25, overdue_name=ODD),
)

NOW = clocks.Instant(1.5, 2.25, 'boot')
SEEN = background.Seen(
    True, activities.Activity('h', NOW, NOW, problems=('p',), current=ODD)
)
ORDER = frames.Order(
    {'host': 'h'},
    instances.GuestList(GUESTS, (('the list', 'gone'),), True),
    ('libvirt', 'read'),
    logging.INFO,
)


def hear(data: bytes, kinds: Any) -> list[Any]:
    """Give the messages that some bytes make up, and what ends them."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def send() -> None:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        found = []
        try:
            while message := frames.receive(ours, kinds):
                found.append(message)
        except frames.Broken as error:
            found.append(error)
            # There may be more, which nobody wants to hear.
            while ours.recv(2**16):
                pass
        thread.join()
        return found


class FramesTest(base.TestCase):
    def test_an_order_comes_through_as_it_is(self) -> None:
        parts = [*frames.of_order(ORDER)]
        heard = hear(b''.join(map(frames.pack, parts)), frames.FromHost)
        *guests, order = heard
        self.assertEqual(3, len(guests))
        found = [guest for part in guests for guest in part.guests]
        self.assertEqual([*GUESTS], found)
        self.assertEqual(ORDER.guests.failures, order.guests.failures)
        self.assertTrue(order.guests.with_devices)
        self.assertEqual(
            (ORDER.settings, ORDER.lent, ORDER.level),
            (order.settings, order.lent, order.level),
        )

    def test_a_report_comes_through_as_it_is(self) -> None:
        parts = [*frames.of_report(frames.Told(REPORT, SEEN))]
        *rows, told = hear(b''.join(map(frames.pack, parts)), frames.FromPass)
        self.assertEqual(SEEN, told.seen)
        files = [file for part in rows for file in part.files]
        trash = [file for part in rows for file in part.trash]
        self.assertEqual([*REPORT.files], files)
        self.assertEqual([*REPORT.trash], trash)
        (sent,), (come,) = REPORT.problems, told.report.problems
        self.assertEqual(vars(sent), vars(come))
        self.assertEqual(
            REPORT,
            reports.Report(
                **{
                    **vars(told.report),
                    'files': tuple(files),
                    'trash': tuple(trash),
                }
            ),
        )

    def test_no_message_has_more_than_a_host_makes_out_at_once(self) -> None:
        for part in frames.of_report(frames.Told(REPORT, SEEN)):
            if isinstance(part, frames.Rows):
                self.assertLessEqual(
                    len(part.files) + len(part.trash), frames.PART
                )
            elif isinstance(part, frames.Told):
                self.assertEqual((), part.report.files + part.report.trash)

    def test_bytes_of_a_disk_come_through(self) -> None:
        data = bytes(range(256))
        packed = frames.pack(frames.Reply(3, msgspec.to_builtins(data)))
        (reply,) = hear(packed, frames.Reply)
        self.assertEqual(data, msgspec.convert(reply.value, bytes))

    @hypothesis.given(strategies.data())
    def test_what_is_cut_short_is_broken_and_nothing_else(
        self, data: Any
    ) -> None:
        whole = frames.pack(frames.Said(20, 'a', 'text'))
        cut = data.draw(strategies.integers(1, len(whole) - 1))
        first, error = hear(whole + whole[:cut], frames.FromPass)
        self.assertEqual(frames.Said(20, 'a', 'text'), first)
        self.assertIsInstance(error, frames.Broken)

    @hypothesis.given(strategies.integers(frames.LIMIT + 1, 2**32 - 1))
    def test_what_is_too_long_is_not_waited_for(self, length: int) -> None:
        (error,) = hear(struct.pack('>I', length), frames.FromPass)
        self.assertIn('announced', str(error))

    def test_what_is_announced_takes_no_memory_before_it_comes(self) -> None:
        asked: list[int] = []
        data = collections.deque([struct.pack('>I', frames.LIMIT), b'x', b''])

        class Connection:
            def recv(self, length: int) -> bytes:
                asked.append(length)
                return data.popleft()

        connection: Any = Connection()
        self.assertRaises(
            frames.Broken, frames.receive, connection, frames.FromPass
        )
        self.assertLess(max(asked), 2**20)

    @hypothesis.given(strategies.binary(max_size=200))
    def test_garbage_is_broken_and_nothing_else(self, body: bytes) -> None:
        for kinds in (frames.FromPass, frames.FromHost, frames.Reply):
            for found in hear(struct.pack('>I', len(body)) + body, kinds):
                self.assertIsInstance(found, frames.Broken)

    @hypothesis.given(
        strategies.recursive(
            strategies.none()
            | strategies.booleans()
            | strategies.floats()
            | strategies.text(),
            lambda each: (
                strategies.lists(each)
                | strategies.dictionaries(strategies.text(), each)
            ),
        )
    )
    def test_nor_is_any_json_a_message(self, value: Any) -> None:
        body = msgspec.json.encode(value)
        for found in hear(
            struct.pack('>I', len(body)) + body, frames.FromPass
        ):
            self.assertIsInstance(found, frames.Broken)

    def test_a_message_of_the_other_side_is_none(self) -> None:
        packed = frames.pack(frames.Said(20, 'a', 'text'))
        (error,) = hear(packed, frames.FromHost)
        self.assertIsInstance(error, frames.Broken)

    def test_so_deep_that_it_cannot_be_read_is_broken(self) -> None:
        body = b'[' * 10**6
        (error,) = hear(struct.pack('>I', len(body)) + body, frames.FromPass)
        self.assertIsInstance(error, frames.Broken)

    def test_what_is_too_long_is_not_sent(self) -> None:
        self.patch(frames, 'LIMIT', 100)
        self.assertRaises(
            ValueError, frames.pack, frames.Said(20, 'a', 'x' * 200)
        )
