# SPDX-License-Identifier: Apache-2.0

"""Files of which each block is a letter, read without a disk.

``'ab0'`` is a file of three blocks, the last one nothing but zeros. In what is
known, ``?`` is a block whose digest is not; in what is found, ``!`` is one
that cannot be read.
"""

from collections.abc import Sequence
import dataclasses
import errno
import hashlib
import os
from typing import Any

from nova_imagecache.cache import base_file
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache import clocks
from nova_imagecache.content import blockmap
from nova_imagecache.content import digests
from nova_imagecache.content import ledgers
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import hashing
from nova_imagecache.scrub import readers

BLOCK = 4096
ALGORITHM = 'xxh3_128'
KEY: identity.Key = (1, 2, None)
NAME = 'f' * 40
NOW = clocks.Instant(2e9, 1e8, 'this boot')
BEFORE = clocks.Instant(2e9 - 1000, 1e8 - 1000, 'this boot')

Aim = comparisons.Aim


def data_of(letter: str) -> bytes:
    return bytes(BLOCK) if letter == '0' else letter.encode() * BLOCK


def sha1_of(text: str) -> str:
    """Give what sha1sum says of a file."""
    return hashlib.sha1(b''.join(map(data_of, text))).hexdigest()


def digest_of(letter: str, algorithm: str = ALGORITHM) -> bytes:
    if letter == '0':
        return digests.of_zeros(algorithm)
    digest = digests.new(algorithm)
    digest.update(memoryview(data_of(letter)))
    return digest.digest()


def blocks_of(text: str, algorithm: str = ALGORITHM) -> blockmap.Blocks:
    """Give the digests of a file, as far as they are known."""
    blocks = blockmap.Blocks(algorithm, len(text) * BLOCK, BLOCK)
    for index, letter in enumerate(text):
        if letter != '?':
            strong = digest_of(letter, digests.STRONG)
            blocks.put(index, digest_of(letter, algorithm), strong)
    return blocks


def ledger_of(text: str, **fields: Any) -> ledgers.Ledger:
    """Give a ledger of a file; without fields, nothing was read yet."""
    ledger = ledgers.Ledger.begin(KEY, len(text) * BLOCK, ALGORITHM)
    return dataclasses.replace(ledger, block_size=BLOCK, **fields)


def proven_of(text: str, **fields: Any) -> ledgers.Ledger:
    """Give the ledger of a file that has been read, and was good."""
    sha1 = sha1_of(text)
    values: dict[str, Any] = {
        'read': BEFORE,
        'verified': BEFORE,
        'sha1': sha1,
        'proven': True,
        'stored': sha1,
    }
    return ledger_of(text, **(values | fields))


def reading_of(
    index: int, letter: str, algorithms: Sequence[str] = (ALGORITHM,)
) -> hashing.BlockReading:
    """Give a block as it was read."""
    if letter == '!':
        error = OSError(errno.EIO, os.strerror(errno.EIO))
        return hashing.BlockReading(index, BLOCK, (), error)
    found = tuple(digest_of(letter, each) for each in algorithms)
    return hashing.BlockReading(index, BLOCK, found)


def add_to(whole: hashing.WholeFile, text: str) -> None:
    """Add what a file holds to its SHA-1."""
    for index, letter in enumerate(text):
        error = reading_of(index, letter).error
        data = None if error else memoryview(data_of(letter))
        whole.add(readers.Piece(index * BLOCK, BLOCK, data, error))


def compared(
    ledger: ledgers.Ledger,
    known: str,
    found: str,
    aim: Aim = Aim.CHECK,
    whole: bool = True,
    algorithm: str | None = ALGORITHM,
) -> comparisons.Comparison:
    """Read all of a file, and what does not match once more.

    :param known: what its blocks should hold
    :param found: what they hold
    :param algorithm: of new digests, if they are wanted
    """
    fresh = None
    if algorithm is not None:
        fresh = blockmap.Blocks(algorithm, len(found) * BLOCK, BLOCK)
    sha1 = hashing.WholeFile() if whole else None
    comparison = comparisons.Comparison(
        aim, ledger, blocks_of(known, ledger.algorithm), fresh, sha1
    )
    if sha1 is not None:
        add_to(sha1, found)
    for index, letter in enumerate(found):
        comparison.take(reading_of(index, letter, comparison.algorithms))
    for index in sorted(comparison.mismatches):
        comparison.take_again(
            reading_of(index, found[index], comparison.algorithms)
        )
    comparison.end(len(found) * BLOCK)
    return comparison


def file_of(
    text: str = 'abc', key: identity.Key = KEY, name: str = NAME, **stat: Any
) -> base_file.BaseFile:
    """Give a base file that nobody looks for."""
    values: dict[str, Any] = {
        'mode': 0o100644,
        'size': len(text) * BLOCK,
        'allocated': len(text) * BLOCK,
        'modified': 10**18,
        'changed': 10**18,
    }
    trashed = stat.pop('trashed', False)
    return base_file.BaseFile(
        layouts.Layout.at('/nowhere', '_base'),
        name,
        identity.Stat(identity.Incarnation(7, *key), **(values | stat)),
        trashed,
    )
