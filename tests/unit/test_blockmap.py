# SPDX-License-Identifier: Apache-2.0

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.content import blockmap
from nova_imagecache.content import digests
from tests.support import base

Blocks = blockmap.Blocks


@ddt.ddt
class BlocksTest(base.TestCase):
    @ddt.data(
        (0, 4 * base.MIB),
        (256 * 1024**3, 4 * base.MIB),
        (256 * 1024**3 + 1, 8 * base.MIB),
        (2**63 - 1, 2**47),
    )
    @ddt.unpack
    def test_a_ledger_has_a_bounded_number_of_blocks(
        self, size: int, expected: int
    ) -> None:
        block_size = blockmap.block_size_for(size)
        self.assertEqual(expected, block_size)
        self.assertLessEqual(-(-size // block_size), blockmap.MOST_BLOCKS)

    def test_nothing_is_known_at_first(self) -> None:
        blocks = Blocks('xxh3_128', 10000, 4096)
        self.assertEqual([None] * 3, [blocks.get(i) for i in range(3)])
        self.assertEqual(
            [4096, 4096, 1808], [blocks.length(i) for i in range(3)]
        )
        self.assertEqual(0, blocks.length(3))

    def test_what_is_known_and_no_zeros_is_data(self) -> None:
        blocks = Blocks('xxh3_128', 3 * 4096, 4096)
        blocks.put(1, digests.of_zeros('xxh3_128'))
        blocks.put(2, digests.of('xxh3_128', b'data'))
        self.assertEqual(
            [False, False, True], [blocks.holds_data(i) for i in range(3)]
        )

    def test_zeros_take_no_digest(self) -> None:
        blocks = Blocks('sha256', 4096 * 1000, 4096)
        for index in range(1000):
            blocks.put(index, digests.of_zeros('sha256'))
        self.assertEqual(1000, len(blocks.encode()))
        self.assertEqual(digests.of_zeros('sha256'), blocks.get(7))

    @hypothesis.given(
        st.sampled_from(digests.ALGORITHMS),
        st.integers(0, 50 * 4096),
        st.dictionaries(
            st.integers(0, 49), st.binary(min_size=1), max_size=50
        ),
    )
    def test_what_is_encoded_is_decoded(
        self, algorithm: str, size: int, contents: dict[int, bytes]
    ) -> None:
        blocks = Blocks(algorithm, size, 4096)
        expected: list[bytes | None] = [None] * blocks.count
        for index, content in contents.items():
            if index < blocks.count:
                if not any(content):
                    content = bytes(blocks.length(index))
                digest = digests.new(algorithm)
                digest.update(memoryview(content))
                expected[index] = digest.digest()
                blocks.put(index, digest.digest())
        again = Blocks.decode(algorithm, size, 4096, blocks.encode())
        for each in (blocks, again):
            self.assertEqual(
                expected, [each.get(index) for index in range(each.count)]
            )

    @hypothesis.given(
        st.text('?0#x', min_size=2, max_size=3), st.integers(0, 50)
    )
    def test_bytes_of_another_file_are_refused(
        self, kinds: str, length: int
    ) -> None:
        data = kinds.encode() + b'd' * length
        # A byte for each of three blocks, and a digest for each with data.
        whole = len(kinds) == 3 and 'x' not in kinds
        if whole and length == 16 * kinds.count('#'):
            blocks = Blocks.decode('xxh3_128', 3 * 4096, 4096, data)
            self.assertEqual(data, blocks.encode())
        else:
            self.assertRaises(
                ValueError, Blocks.decode, 'xxh3_128', 3 * 4096, 4096, data
            )

    def test_no_bytes_stand_for_nothing_known(self) -> None:
        blocks = Blocks.decode('xxh3_128', 3 * 4096, 4096, b'')
        self.assertEqual(b'???', blocks.encode())


class StrongTest(base.TestCase):
    """What decides about data from a network."""

    def setUp(self) -> None:
        super().setUp()
        self.data = bytes(range(256)) * 16
        self.blocks = Blocks('xxh3_128', 3 * 4096, 4096)
        weak, strong = (
            digests.of(name, self.data) for name in ('xxh3_128', 'blake2b')
        )
        self.blocks.put(0, weak, strong)
        self.blocks.put(1, weak)
        self.blocks.put(2, digests.of_zeros('xxh3_128'))

    def matches(self, index: int, data: bytes) -> tuple[bool, bool]:
        """Say whether it does, by any digest and by cryptographic ones."""
        found = tuple(
            self.blocks.matches(index, data, cryptographic)
            for cryptographic in (False, True)
        )
        return found[0], found[1]

    def test_a_strong_digest_is_needed_where_one_is_asked_for(self) -> None:
        self.assertEqual((True, True), self.matches(0, self.data))
        self.assertEqual((True, False), self.matches(1, self.data))

    def test_zeros_are_what_they_are(self) -> None:
        self.assertEqual((True, True), self.matches(2, bytes(4096)))
        self.assertEqual((False, False), self.matches(2, self.data))

    def test_a_strong_digest_that_is_wrong_counts_in_any_case(self) -> None:
        weak = digests.of('xxh3_128', self.data)
        self.blocks.put(0, weak, bytes(32))
        self.assertEqual((False, False), self.matches(0, self.data))

    def test_another_length_never_matches(self) -> None:
        for data in (b'', self.data[:-1], self.data + b'x', bytes(100)):
            self.assertEqual((False, False), self.matches(0, data))
            self.assertEqual((False, False), self.matches(2, data))

    def test_what_is_not_known_matches_nothing(self) -> None:
        self.blocks = Blocks('xxh3_128', 4096, 4096)
        self.assertEqual((False, False), self.matches(0, bytes(4096)))

    def test_a_cryptographic_digest_needs_no_other(self) -> None:
        self.blocks = Blocks('sha256', 4096, 4096)
        self.blocks.put(0, digests.of('sha256', self.data), bytes(32))
        self.assertEqual((True, True), self.matches(0, self.data))
        self.assertEqual(frozenset(), self.blocks.weak)
        self.assertEqual(1 + 32, len(self.blocks.encode()))

    def test_they_are_kept(self) -> None:
        again = Blocks.decode('xxh3_128', 3 * 4096, 4096, self.blocks.encode())
        self.assertEqual(frozenset({1}), again.weak)
        self.assertTrue(again.matches(0, self.data, True))
        self.assertEqual(self.blocks.encode(), again.encode())

    def test_what_an_earlier_release_wrote_is_read(self) -> None:
        weak = digests.of('xxh3_128', self.data)
        payload = b'##0' + weak + weak
        again = Blocks.decode('xxh3_128', 3 * 4096, 4096, payload)
        self.assertEqual(frozenset({0, 1}), again.weak)
        self.assertEqual(payload, again.encode())

    def test_a_strong_digest_that_is_cut_short_is_refused(self) -> None:
        payload = self.blocks.encode()
        for data in (payload[:-1], payload + b'x'):
            self.assertRaises(
                ValueError, Blocks.decode, 'xxh3_128', 3 * 4096, 4096, data
            )
