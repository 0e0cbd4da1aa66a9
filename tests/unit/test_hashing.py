# SPDX-License-Identifier: Apache-2.0

import errno
import hashlib

import hypothesis
from hypothesis import strategies as st

from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import readers
from tests.support import base


class HashingTest(base.TestCase):
    def pieces(self, data: bytes, cuts: list[int]) -> list[readers.Piece]:
        found = []
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            part = data[start:end]
            hole = not any(part)
            found.append(
                readers.Piece(
                    start, len(part), None if hole else memoryview(part)
                )
            )
        return found

    @hypothesis.given(st.data())
    def test_holes_and_pieces_make_no_difference(
        self, draw: st.DataObject
    ) -> None:
        parts = draw.draw(
            st.lists(
                st.tuples(st.booleans(), st.integers(1, 9000)), max_size=8
            )
        )
        data = b''.join(
            bytes(length) if hole else b'\1' * length for hole, length in parts
        )
        # As the reader does: data pieces end with a block, holes need not.
        cuts: list[int] = []
        position = 0
        for hole, length in parts:
            end = position + length
            if not hole:
                first = position // 4096 + 1
                cuts += range(first * 4096, end, 4096)
            cuts.append(end)
            position = end
        cuts = sorted(set(cuts) - {len(data)})
        whole = hashing.WholeFile()
        readings = list(
            hashing.read_blocks(
                self.pieces(data, cuts), 4096, ['sha256', 'xxh3_128'], whole
            )
        )
        plain = list(
            hashing.read_blocks(
                self.pieces(data, list(range(4096, len(data), 4096))),
                4096,
                ['sha256', 'xxh3_128'],
            )
        )
        self.assertEqual(plain, readings)
        self.assertEqual(len(data), sum(each.length for each in readings))
        self.assertEqual(hashlib.sha1(data).hexdigest(), whole.hexdigest())

    def test_a_part_that_cannot_be_read_leaves_no_sha1(self) -> None:
        whole = hashing.WholeFile()
        error = OSError(errno.EIO, 'x')
        (reading,) = hashing.read_blocks(
            [readers.Piece(0, 4096, error=error)], 4096, ['sha256'], whole
        )
        self.assertEqual((error, ()), (reading.error, reading.digests))
        self.assertIsNone(whole.hexdigest())
