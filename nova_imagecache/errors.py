# SPDX-License-Identifier: Apache-2.0

"""The errors that this package raises on purpose.

::

    Error                   the message is for an operator, one line
    |-- NotNow              this file, in this pass: skip it and say why
    |   |-- Locked          somebody else holds its lock
    |   |-- LockBroken      there is no way to take its lock
    |   |   `-- ReadOnly    as we cannot write where it is
    |   |-- Changed         it is not the file that was looked at
    |   |-- Written         it was written to while it was read
    |   |-- Stopped         we were told to stop reading
    |   |-- Hung            a read of it has not come back for minutes
    |   `-- Blind           what is known of it cannot be read
    |       `-- Newer       a record of ours is made by a newer release
    |-- KnownDamage         what is bad gets no checksum, and no disk over it
    |-- Damaged             a record of ours is not what we wrote
    |-- ImageRefused        an image that must not get into the cache
    `-- FetchFailed         the image could not be put into the cache
    InvalidOption           a value in nova.conf (an oslo.config error)
"""

from oslo_config import cfg


class Error(Exception):
    """Base of the errors whose message an operator can act on."""


class NotNow(Error):
    """The file cannot be worked on in this pass."""


class Locked(NotNow):
    """The lock of the file cannot be had without waiting."""


class LockBroken(NotNow):
    """The lock cannot be taken by anybody like us; somebody has to act."""


class ReadOnly(LockBroken):
    """Nobody like us can write here, and so take a lock."""


class Changed(NotNow):
    """The file went, or was replaced, since it was looked at."""


class Written(NotNow):
    """The file was touched or written to while it was read."""


class Stopped(NotNow):
    """We were told to stop, so no further read was started."""


class Hung(NotNow):
    """A read of the file has not come back for minutes, and may never do."""


class Blind(NotNow):
    """What is known of the file cannot be read, so nothing is compared."""


class Newer(Blind):
    """A record is made by a newer release, and is not ours to touch."""


class KnownDamage(Error):
    """The file is known to be bad.

    A checksum of it would be wrong, and so would be a disk made from it.
    """


class Damaged(Error):
    """A record is truncated, altered or of another kind."""


class ImageRefused(Error):
    """The image is hostile, mislabelled, or of a format not cached here."""


class FetchFailed(Error):
    """The image could not be fetched, published or made into a disk."""


class InvalidOption(cfg.Error):
    """A value of an option makes no sense; the message names the option."""

    def __init__(self, option: str, value: object, problem: str) -> None:
        """Name the option as oslo.config does: ``[group]/name``."""
        super().__init__(f'{option} = {value}: {problem}')
        self.option = option


def why(error: Exception) -> str:
    """Say why something went wrong, for people who know where that was.

    Of an error of the system the words alone, without its number and path.
    """
    return getattr(error, 'strerror', None) or str(error)
