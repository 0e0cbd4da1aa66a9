# SPDX-License-Identifier: Apache-2.0

"""What is known of all bytes of a base file by somebody else.

A first reading has nothing to compare with but this: the digest that the image
service has of an image.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from nova_imagecache.cache import base_file


@dataclasses.dataclass(frozen=True)
class Evidence:
    """A digest that all of a file should have.

    :ivar image: UUID of the image that it is of
    :ivar hash: of hashlib, begun; gets all of the file
    :ivar digest: that it should give, in hex digits
    """

    image: str
    hash: Any
    digest: str

    @property
    def holds(self) -> bool:
        """Whether the file has it, once all of it was added."""
        return bool(self.hash.hexdigest() == self.digest)


#: Gives the evidence on a base file: that file, and the UUID of its image.
#: None where there is none, or nobody can be asked just now. Raises nothing.
Ask = Callable[[base_file.BaseFile, str], Evidence | None]


def ask_nobody(_file: base_file.BaseFile, _image: str) -> Evidence | None:
    """Have no evidence."""
    return None
