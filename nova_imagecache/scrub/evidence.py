# SPDX-License-Identifier: Apache-2.0

"""What is known of all bytes of a base file by somebody else.

A first reading has nothing to compare with but this: the digest that the image
service has of an image.
"""

import dataclasses
from typing import Any
from typing import Protocol

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


class Asker(Protocol):
    """Who can be asked of the image of a base file; raises nothing."""

    def digest(self, file: base_file.BaseFile, image: str) -> Evidence | None:
        """Give evidence on a file, for its first reading.

        :param image: UUID of its image
        :returns: None where there is none, or nobody can be asked just now
        """
        ...

    def look_again(self, file: base_file.BaseFile, image: str) -> None:
        """Take down whether there still is its image, for a later reading."""
        ...


class Nobody:
    """Has no evidence, an :class:`Asker`."""

    def digest(
        self, _file: base_file.BaseFile, _image: str
    ) -> Evidence | None:
        """Give none."""
        return None

    def look_again(self, _file: base_file.BaseFile, _image: str) -> None:
        """Do nothing."""
