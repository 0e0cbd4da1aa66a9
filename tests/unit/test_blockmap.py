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
