# SPDX-License-Identifier: Apache-2.0

"""Tables of qcow2 that anybody may have written."""

import struct

import hypothesis
from hypothesis import strategies as st

from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import qcow2_tables
from tests.support import base

BLOCK = 4 * base.MIB
LENGTH = 10 * 1024 * base.MIB

OFFSETS = st.integers(0, LENGTH * 2) | st.integers(0, 2**64 - 1)
ENTRIES = OFFSETS | OFFSETS.map(lambda value: value & ~0xFFFF)
FLAGS = st.sampled_from((0, 1, 1 << 62, 1 << 63, 1 << 63 | 1))


def header(
    bits: int = 16, l1_size: int = 1024, zstd: bool = False
) -> qcow2_tables.Header:
    return qcow2_tables.Header(3, bits, LENGTH, 3 << bits, l1_size, zstd)


class Image:
    """Gives table entries, and counts what is read.

    :ivar pool: the entries, by offset in turn
    """

    def __init__(self, pool: list[int]) -> None:
        self.pool = pool
        self.read = 0
        self.requests = 0

    def __call__(self, start: int, length: int) -> bytes:
        self.read += length
        self.requests += 1
        count = len(self.pool)
        return b''.join(
            struct.pack('>Q', self.pool[(start // 8 + index) % count])
            for index in range(-(-length // 8))
        )[:length]


class PlanTest(base.TestCase):
    @hypothesis.given(
        st.integers(9, 21),
        st.lists(
            st.builds(lambda value, flag: value | flag, ENTRIES, FLAGS)
            .map(lambda value: value & (2**64 - 1)),
            min_size=1,
            max_size=8,
        ),
        st.integers(0, LENGTH // BLOCK - 1),
    )  # fmt: skip
    def test_whatever_they_say_what_is_read_is_bounded(
        self, bits: int, pool: list[int], block: int
    ) -> None:
        image = Image(pool)
        top = header(bits, l1_size=2**22)
        start = block * BLOCK
        try:
            plan = qcow2_tables.plan(top, LENGTH, start, start + BLOCK, image)
        except sources.Unavailable as error:
            self.assertIn(
                error.state, (sources.State.HOSTILE, sources.State.NO_RANGES)
            )
        else:
            sizes = [part.end - part.start for part in plan.parts]
            count = -(-BLOCK // top.cluster)
            self.assertLessEqual(
                sum(sizes), count * (top.cluster + 512) + 64 * base.KIB
            )
            self.assertLessEqual(len(sizes), qcow2_tables.MOST_PARTS)
            self.assertLessEqual(
                max((part.end for part in plan.parts), default=0), LENGTH
            )
        self.assertLessEqual(image.read, 2 * qcow2_tables.MOST_TABLES)
        self.assertLessEqual(image.requests, 1 + qcow2_tables.MOST_PARTS)

    def test_tables_in_one_place_are_one_request(self) -> None:
        image = Image([5 << 16])
        plan = qcow2_tables.plan(header(), LENGTH, 0, BLOCK, image)
        self.assertEqual(2, image.requests)
        self.assertEqual((5 << 16, 6 << 16), (plan.parts[0].start,
                                              plan.parts[0].end))  # fmt: skip


class HeaderTest(base.TestCase):
    @hypothesis.given(st.binary(max_size=200), OFFSETS)
    def test_any_bytes_are_a_header_or_refused(
        self, data: bytes, length: int
    ) -> None:
        for head in (data, b'QFI\xfb' + data, b'QFI\xfb\0\0\0\3' + data):
            try:
                qcow2_tables.Header.parse(head, length)
            except sources.Unavailable as error:
                self.assertIs(sources.State.HOSTILE, error.state)

    def test_what_is_made_for_qemu_is_a_header(self) -> None:
        for one in (
            header(),
            qcow2_tables.Header(2, 12, 2**20, 4096, 1),
            header(zstd=True),
        ):
            head = one.encode(0).ljust(512, b'\0')
            self.assertEqual(one, qcow2_tables.Header.parse(head, LENGTH))
