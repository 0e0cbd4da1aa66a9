# SPDX-License-Identifier: Apache-2.0

import errno
import hashlib
import itertools
import threading

import hypothesis
from hypothesis import strategies as st

from nova_imagecache.content import digests
from nova_imagecache import errors
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import limiters
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

    def holes(self, size: int) -> list[readers.Piece]:
        """Give the pieces of a block of data and a hole behind it."""
        data = memoryview(b'x' * 4096)
        return [readers.Piece(0, 4096, data), readers.Piece(4096, size)]

    def test_a_block_of_zeros_is_hashed_neither_read_nor_as_a_hole(
        self,
    ) -> None:
        self.patch(digests, 'add_zeros', self.fail)
        self.patch(hashing.Zeros, 'add', self.fail)
        pieces = [
            readers.Piece(0, 2**40, None),
            readers.Piece(2**40, 4096, memoryview(bytes(4096))),
            readers.Piece(2**40 + 4096, 2**40 - 4096, None),
        ]
        readings = [*hashing.read_blocks(pieces, 2**40, ['sha256'])]
        self.assertEqual(
            [(digests.of_zeros('sha256'),)] * 2,
            [each.digests for each in readings],
        )

    def test_zeros_before_data_count_read_or_not(self) -> None:
        data = memoryview(b'\0' * 4096 + b'x' * 4096)
        hole = [
            readers.Piece(0, 4096, None),
            readers.Piece(4096, 4096, data[4096:]),
        ]
        plain = [
            readers.Piece(0, 4096, data[:4096]),
            readers.Piece(4096, 4096, data[4096:]),
        ]
        expected = hashlib.sha256(data).digest()
        for pieces in (hole, plain):
            (reading,) = hashing.read_blocks(pieces, 8192, ['sha256'])
            self.assertEqual((expected,), reading.digests)

    def test_zeros_are_hashed_at_the_share_of_the_limiter(self) -> None:
        waited: list[float] = []
        limiter = limiters.Limiter(1, waited.append)
        cpu = itertools.count(0, 0.5)
        means = readers.Means(limiter)
        zeros = hashing.Zeros(means, lambda: next(cpu))
        zeros.add(digests.new('xxh3_128'), 40 * base.MIB)
        # Half a second for each of five parts.
        self.assertEqual([3.5] * 5, waited)

    def test_in_a_hole_there_is_a_look_around_all_the_time(self) -> None:
        seen: list[int] = []
        means = readers.Means(progress=seen.append)
        whole = hashing.WholeFile()
        for _reading in hashing.read_blocks(
            self.holes(200 * base.MIB), 2**30, ['xxh3_128'], whole, means
        ):
            pass
        # For the SHA-1, and for the block; and no byte was read.
        self.assertEqual([0] * 50, seen)

    def test_within_a_hole_it_stops_when_told_to(self) -> None:
        stop = threading.Event()
        means = readers.Means(stop=stop, progress=lambda _length: stop.set())
        readings = hashing.read_blocks(
            self.holes(2**60), 2**61, ['xxh3_128'], None, means
        )
        self.assertRaises(errors.Stopped, next, readings)

    def test_a_part_that_cannot_be_read_leaves_no_sha1(self) -> None:
        whole = hashing.WholeFile()
        error = OSError(errno.EIO, 'x')
        (reading,) = hashing.read_blocks(
            [readers.Piece(0, 4096, error=error)], 4096, ['sha256'], whole
        )
        self.assertEqual((error, ()), (reading.error, reading.digests))
        self.assertIsNone(whole.hexdigest())
