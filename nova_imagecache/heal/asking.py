# SPDX-License-Identifier: Apache-2.0

"""Asking sources one after the other, whatever becomes of them."""

from collections.abc import Collection
from collections.abc import Generator
from collections.abc import Sequence

from nova_imagecache.heal import sources
from nova_imagecache import names

State = sources.State


class Asked:
    """What sources had to say, beside what they gave.

    :ivar states: why each of them gave nothing, or no more: state and message
    """

    def __init__(self) -> None:
        """Have asked nobody yet."""
        self.states: dict[str, tuple[str, str]] = {}

    def without_weak(
        self,
        source: sources.Source,
        blocks: Sequence[int],
        weak: Collection[int],
    ) -> Sequence[int]:
        """Leave out blocks of which a source may give anything.

        :param weak: those that have no cryptographic digest
        """
        if any(index in weak for index in blocks):
            self.states[source.name] = (
                str(State.WEAK_DIGEST),
                'there is no cryptographic digest of a block, which went bad '
                'before there was one; download the image, and name it with '
                '--source',
            )
        return [index for index in blocks if index not in weak]

    def note_other(self, source: sources.Source, origin: str) -> None:
        """Note that a source has other data than what is wanted."""
        self.states.setdefault(
            source.name,
            (str(State.OTHER_BYTES), f'{origin} holds other bytes'),
        )

    def pieces(
        self,
        source: sources.Source,
        base: sources.Base,
        wanted: Sequence[sources.Wanted],
    ) -> Generator[sources.Piece, None, None]:
        """Take what a source gives, and note why it gives no more."""
        given = source.read(base, wanted)
        try:
            while True:
                try:
                    piece = next(given, None)
                except sources.Unavailable as error:
                    self.states[source.name] = (str(error.state), str(error))
                    return
                except OSError as error:
                    reason = error.strerror or str(error)
                    self.states[source.name] = (str(State.FAILED), reason)
                    return
                # A broad net: what is far away may be anything.
                except Exception as error:
                    self.states[source.name] = (
                        str(State.FAILED),
                        names.printable(str(error) or repr(error)),
                    )
                    return
                if piece is None:
                    return
                if len(piece.data) != piece.wanted.length:
                    self.states[source.name] = (
                        str(State.TRUNCATED),
                        f'{piece.origin} gave {len(piece.data)} bytes and not '
                        f'{piece.wanted.length}',
                    )
                    continue
                yield piece
        finally:
            close = getattr(given, 'close', None)
            if close is not None:
                # It may have files and connections open.
                close()
