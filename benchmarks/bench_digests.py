# SPDX-License-Identifier: Apache-2.0

"""The processor time of each checksum_algorithm, beside the default one.

Of hashing alone, from the processor's cache: what is read from a disk comes
on top of it, for all of them.
"""

import statistics
import time

import common
from oslo_utils import units

from nova_imagecache.conf import image_cache
from nova_imagecache.content import digests

_PIECE = 4 * units.Mi
_PIECES = 64


def rate(algorithm: str, data: memoryview) -> float:
    """Hash some data again and again; give GiB per processor second."""
    digest = digests.new(algorithm)
    began = time.process_time()
    for _piece in range(_PIECES):
        digest.update(data)
    return _PIECES * _PIECE / units.Gi / (time.process_time() - began)


def main() -> None:
    """Measure all in turn, and print each beside the default."""
    options = common.parser(__doc__, rounds=5).parse_args()
    data = memoryview(bytes(range(256)) * (_PIECE // 256))
    algorithms = image_cache.CHECKSUM_ALGORITHMS
    rates: dict[str, list[float]] = {name: [] for name in algorithms}
    for _round in range(options.rounds):
        for name in algorithms:
            rates[name].append(rate(name, data))
    default = statistics.median(rates[algorithms[0]])
    for name in algorithms:
        found = statistics.median(rates[name])
        print(
            f'{name}: {found:.1f} GiB per processor second, '
            f'{algorithms[0]} / {name}: {default / found:.1f}'
        )


if __name__ == '__main__':
    main()
