# SPDX-License-Identifier: Apache-2.0

"""What a guest may need of a cache, by pure functions.

Where its disks cannot tell, its image and its devices do.

As a set of words: the name of a base file, the fingerprint of an image, which
stands for all that is made from it, or ``ephemeral_<GiB>``. Beside them there
are two for whatever a guest may have: :data:`ANY_SWAP` and
:data:`ANY_EPHEMERAL`.
"""

from collections.abc import Collection
import re

from nova_imagecache import names

Needs = frozenset[str]

ANY_SWAP = 'swap_*'
ANY_EPHEMERAL = 'ephemeral_*'

#: Of a guest of which only the image is known.
ANY_DEVICE: Needs = frozenset({ANY_SWAP, ANY_EPHEMERAL})

# The rest of an ephemeral name depends on the guest's OS.
_EPHEMERAL = re.compile(r'(ephemeral_[0-9]+)_.*')


def words_for(base_file: str) -> Needs:
    """Give all words that a base file is meant by."""
    kind = names.kind_of(base_file)
    if kind.is_image:
        return frozenset({base_file, names.fingerprint(base_file)})
    if kind is names.Kind.SWAP:
        return frozenset({base_file, ANY_SWAP})
    match = _EPHEMERAL.fullmatch(base_file)
    if match:
        return frozenset({base_file, match[1], ANY_EPHEMERAL})
    return frozenset({base_file})


def may_need(needs: Collection[str], base_file: str) -> bool:
    """Whether a base file is among what may be needed."""
    return not words_for(base_file).isdisjoint(needs)
