# SPDX-License-Identifier: Apache-2.0

"""What a pass knows before it looks."""

import dataclasses

from nova_imagecache.cache import ignored_files
from nova_imagecache.cache import inventories


@dataclasses.dataclass(frozen=True)
class Memory:
    """What is known of this host from before, and said by its operator.

    :ivar inventory: what its last pass has found
    :ivar marks: files that are no disks of guests, on somebody's word
    :ivar patterns: of paths that are not looked into
    """

    inventory: inventories.Inventory = dataclasses.field(
        default_factory=inventories.Inventory
    )
    marks: ignored_files.Marks = dataclasses.field(default_factory=dict)
    patterns: tuple[str, ...] = ()
