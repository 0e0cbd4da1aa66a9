# SPDX-License-Identifier: Apache-2.0

"""What may happen to base files, and to what is known of them."""

import collections
from collections.abc import Sequence
import contextlib
import dataclasses
import os
from typing import TypeVar

from tests.histories import judges
from tests.histories import media
from tests.histories import papers
from tests.histories import worlds

BLOCK = media.BLOCK
Image = media.Image
_T = TypeVar('_T')


class Damages(judges.Judge):
    """Steps in which the product does nothing."""

    def __init__(
        self, world: media.World, counts: collections.Counter[str]
    ) -> None:
        """Begin with what there is."""
        super().__init__(world, counts)
        self._effects = judges.Effects()
        self._number = 0

    def _pick(self, choices: Sequence[_T]) -> _T:
        self._number, index = divmod(self._number, len(choices))
        return choices[index]

    def _image(self) -> Image:
        first, second, third = self._world.images.values()
        # Few, so that much happens to each.
        return self._pick([first, first, first, second, third, third])

    def _block(self, image: Image) -> int:
        return self._pick(range(image.count))

    # What a file holds.

    def _touch(self) -> None:
        self._world.touch(self._image().path)
        self._effects.silent = True

    def _write(self) -> None:
        self._write_one(self._image())

    def _growing(self, image: Image) -> list[int]:
        """Give the blocks of which nobody can say that they are complete."""
        found = papers.Papers.of(self._world.layout, image.name)
        if 'settled' in image.past or found.newer or found.sidecar:
            return []
        return [*found.unsettled & {*range(image.count)}]

    def _write_one(self, image: Image) -> None:
        """Write to a file as whoever makes it does."""
        open_blocks = self._growing(image)
        if not open_blocks:
            return
        block = self._pick(open_blocks)
        start = block * BLOCK
        length = len(media.block_of(image.truth, block))
        data = media.make_content(self._number, '#')[:length]
        image.truth = (
            image.truth[:start] + data + image.truth[start + length :]
        )
        image.past.add('changed')
        self._world.write(image, start, data)
        self._world.touch(image.path)

    def _resize(self) -> None:
        self._resize_one(self._image())

    def _resize_one(self, image: Image) -> None:
        """Have a file grow, or be cut, while it is made."""
        if not self._growing(image):
            return
        size = len(image.truth) + self._pick([-BLOCK, -5, 5, BLOCK])
        image.truth = image.truth[:size].ljust(size, b'\0')
        image.past.add('changed')
        os.truncate(image.path, size)
        self._world.touch(image.path)

    def _flip(self) -> None:
        self._flip_one(self._image())

    def _flip_one(self, image: Image) -> None:
        """Damage a block, which has other bytes each time."""
        place = self._world.tick() // 1000 % media.TAIL
        start = self._block(image) * BLOCK + place
        data = worlds.read(image.path)[start : start + 1]
        if data:
            self._world.write(image, start, bytes([data[0] ^ 8]))
            image.past |= {'changed', 'damaged'}

    def _repair(self) -> None:
        self._repair_one(self._image())

    def _repair_one(self, image: Image) -> None:
        for block in image.damaged:
            self._world.write(
                image, block * BLOCK, media.block_of(image.truth, block)
            )
            image.past.add('changed')

    def _fail(self) -> None:
        self._fail_one(self._image())

    def _fail_one(self, image: Image) -> None:
        """Have a block be unreadable, from its start or its middle."""
        block, good = self._block(image), self._pick([0, 1024])
        data = media.block_of(worlds.read(image.path), block)
        # A hole is nowhere on the disk, and what is behind the end of a file
        # is no part of it.
        if any(data):
            image.eio[block] = min(good, len(data) // 2)

    def _heal(self) -> None:
        """Have a disk read again what it could not."""
        self._image().eio.clear()

    def _remap(self) -> None:
        """Have a disk put zeros in the place of what it cannot read."""
        image = self._image()
        for block in image.eio:
            length = len(media.block_of(image.truth, block))
            self._world.write(image, block * BLOCK, bytes(length))
            image.past |= {'changed', 'damaged'}
        image.eio.clear()

    # Other files of the same name.

    def _put(self, image: Image, data: bytes, past: str) -> None:
        image.past |= {past, 'settled'}
        self._world.put(image, data)

    def _copy(self) -> None:
        """Copy a file, what is known of it before or after or not at all."""
        image, order = self._image(), self._pick(['after', 'before', 'not'])
        if image.eio:
            return
        sidecar = image.path + '.sha1'
        if order == 'before':
            self._world.copy(sidecar)
        self._put(image, worlds.read(image.path), 'replaced')
        if self._pick([False, False, True]):
            self._flip_one(image)
        if order == 'after':
            self._world.copy(sidecar)

    def _refetch(self) -> None:
        """Fetch the same image anew, on another place of the disk."""
        image = self._image()
        image.eio.clear()
        self._put(image, image.truth, 'replaced')

    def _reform(self) -> None:
        """Fetch an image in another form."""
        image, seed = self._image(), self._world.tick()
        kinds = self._pick(['###', '#0####', '##'])
        # Never of a size that it had.
        tail = 1001 + seed // 1000 % 1000
        self._make_anew(image, media.make_content(seed, kinds, tail))

    def _swap_anew(self) -> None:
        """Make a file anew that is no image's, with other bytes."""
        image = self._pick(
            [each for each in self._world.images.values() if not each.original]
        )
        kinds = ''.join(
            '#' if any(media.block_of(image.truth, index)) else '0'
            for index in range(image.count - 1)
        )
        self._make_anew(image, media.make_content(self._world.tick(), kinds))

    def _make_anew(self, image: Image, truth: bytes) -> None:
        image.truth = truth
        image.eio.clear()
        # Whatever was found in another file.
        image.past -= {'damaged', 'wrong', 'eio'}
        self._put(image, truth, 'reformed')

    # What is known.

    def _lost(self, image: Image) -> None:
        image.past |= {'lost', 'settled'}

    def _ledger(self, image: Image) -> str:
        self._lost(image)
        return self._world.layout.ledger(image.name)

    def _lose(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _lose_ledger(self) -> None:
        self._lose(self._ledger(self._image()))

    def _truncate_ledger(self) -> None:
        path = self._ledger(self._image())
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, 60)

    def _spoil_payload(self) -> None:
        path = self._ledger(self._image())
        record = papers.load(path)
        if record is not None and record.payload:
            data = worlds.read(path)
            with open(path, 'wb') as file:
                file.write(data[:-1] + bytes([data[-1] ^ 1]))

    def _lose_sidecar(self) -> None:
        image = self._image()
        self._lost(image)
        self._lose(image.path + '.sha1')

    def _spoil_sidecar(self) -> None:
        self._store('garbage')

    def _wrong_sidecar(self) -> None:
        self._store('ab' * 20).past.add('wrong')

    def _store(self, text: str) -> Image:
        image = self._image()
        self._lost(image)
        with open(image.path + '.sha1', 'w') as file:
            file.write(text)
            self._world.bear(os.fstat(file.fileno()).st_ino)
        return image

    def _lose_both(self) -> None:
        image = self._image()
        self._lose(self._ledger(image))
        self._lose(image.path + '.sha1')

    def _lose_state(self) -> None:
        self._lose(self._world.layout.state)
        for image in self._world.images.values():
            # Until each host has made a pass, another one's boots are strange.
            image.past.add('strange')

    # Other releases.

    def _records(self) -> list[tuple[str, str]]:
        layout = self._world.layout
        paths = [('ledger', layout.ledger(name)) for name in media.FILES]
        return [('state', layout.state), *paths]

    def _downgrade(self) -> None:
        """Have all records be those of the release before."""
        for kind, path in self._records():
            record = papers.load(path)
            older = record and papers.older(kind, path, record)
            if older is not None:
                papers.write(path, kind, older)
        self._effects.silent = True

    def _supersede(self) -> None:
        """Have a record be one of a newer release, or that one gone."""
        kind, path = self._pick(self._records())
        record = papers.load(path)
        if record is None or record.payload is None:
            return
        version = record.version + (10 if record.version < 10 else -10)
        papers.write(path, kind, dataclasses.replace(record, version=version))
