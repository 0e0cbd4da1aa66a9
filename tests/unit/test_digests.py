# SPDX-License-Identifier: Apache-2.0

import hashlib
import random

import ddt
import xxhash

from nova_imagecache.conf import image_cache
from nova_imagecache.conf import Settings
from nova_imagecache.content import digests
from tests.support import base


@ddt.ddt
class DigestTest(base.TestCase):
    def test_the_option_offers_what_there_is_the_default_first(self) -> None:
        self.assertEqual(image_cache.CHECKSUM_ALGORITHMS, digests.ALGORITHMS)
        self.assertEqual('xxh3_128', Settings('/').checksum_algorithm)

    def test_the_digests_are_those_of_the_libraries(self) -> None:
        data = random.Random(1).randbytes(100000)
        for algorithm, expected in (
            ('xxh3_128', xxhash.xxh3_128(data).digest()),
            ('sha256', hashlib.sha256(data).digest()),
            ('blake2b', hashlib.blake2b(data, digest_size=32).digest()),
        ):
            digest = digests.new(algorithm)
            digest.update(memoryview(data)[:1000])
            digest.update(memoryview(data)[1000:])
            self.assertEqual(expected, digest.digest())

    @ddt.data(0, 1, 4096, 3 * base.MIB + 5)
    def test_zeros_are_added_as_if_they_had_been_read(
        self, length: int
    ) -> None:
        digest = digests.new('xxh3_128')
        digests.add_zeros(digest, length)
        self.assertEqual(
            xxhash.xxh3_128(bytes(length)).digest(), digest.digest()
        )

    @ddt.data(1, 64, 65, 4096, base.MIB, 3 * base.MIB + 5)
    def test_zeros_are_told_from_anything_else(self, length: int) -> None:
        data = bytearray(length)
        self.assertTrue(digests.are_zeros(memoryview(data)))
        for index in {0, length // 2, length - 1}:
            data[index] = 1
            self.assertFalse(digests.are_zeros(memoryview(data)))
            data[index] = 0

    @ddt.data(*digests.ALGORITHMS)
    def test_what_stands_for_zeros_takes_as_much_room(
        self, algorithm: str
    ) -> None:
        self.assertEqual(
            digests.new(algorithm).digest_size,
            len(digests.of_zeros(algorithm)),
        )
