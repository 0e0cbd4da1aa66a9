# SPDX-License-Identifier: Apache-2.0

"""What the image service says of the image of a file that is read.

One small question before hours of reading, and no other: the bytes of the
image stay where they are. Before the first reading it is for the digest;
before later ones, now and then, for whether there still is the image.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import logging
import random

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.heal import accounts
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import image_records
from nova_imagecache.heal.sources import images
from nova_imagecache import names
from nova_imagecache.scrub import evidence

LOG = logging.getLogger(__name__)

State = sources.State

# These are answers, and say nothing of the next question.
_OF_THE_IMAGE = (State.GONE, State.NOT_FOUND, State.OTHER_BYTES)


@dataclasses.dataclass(frozen=True)
class Asker:
    """Asks for images, an :class:`evidence.Asker`.

    :ivar paths: of what the host has for nova.conf
    :ivar chance: gives a number from 0 to 1 at random
    """

    settings: Settings
    paths: Sequence[str]
    watch: sources.Watch
    clock: clocks.Clock = clocks.now
    chance: Callable[[], float] = random.random

    def digest(
        self, file: base_file.BaseFile, image: str
    ) -> evidence.Evidence | None:
        """Give the digest that all of a file should have, if there is one."""
        if not self._may_ask(file, image):
            return None
        before = self._account().unanswered
        if before is not None and not before.is_due(self.clock()):
            return None
        return self._evidence(file, self._ask(file, image))

    def look_again(self, file: base_file.BaseFile, image: str) -> None:
        """Note whether there still is an image, unless that was so lately.

        Nobody else would find out before it is needed.
        """
        if not self._may_ask(file, image):
            return
        if self._account().is_to_ask(image, self.clock(), self.chance()):
            self._ask(file, image)

    def _may_ask(self, file: base_file.BaseFile, image: str) -> bool:
        return names.get_cache_fname(
            image
        ) == file.name and image_records.is_configured(self.paths)

    def _account(self) -> accounts.Account:
        layout = layouts.Layout.of(self.settings)
        return accounts.load(layout, self.settings.host)

    def _ask(
        self, file: base_file.BaseFile, image: str
    ) -> images.Image | None:
        """Ask for an image, and note what came of that.

        :returns: None if it is not known, or that cannot be noted: then the
            others are not asked for in vain either
        """
        found: images.Image | None = None
        failed: sources.Unavailable | None = None
        try:
            found = image_records.ask(image, self.paths, self.watch)
        except sources.Unavailable as error:
            if error.state is State.STOPPED:
                return None
            LOG.info(
                '%(name)s is read without word of its image: %(error)s',
                {'name': names.printable(file.name), 'error': error},
            )
            failed = error
        layout, host = layouts.Layout.of(self.settings), self.settings.host
        # That took a while, and others note there too.
        before, now = self._account(), self.clock()
        is_gone = failed is not None and failed.state is State.GONE
        if is_gone and image not in before.gone:
            LOG.warning(
                '[N23] %(name)s: %(error)s',
                {'name': names.printable(file.name), 'error': failed},
            )
        if failed is None or is_gone:
            account = before.seeing(image, is_gone, now)
            account = dataclasses.replace(account, unanswered=None)
        elif failed.state in _OF_THE_IMAGE:
            account = before.hearing(image, now)
        else:
            account = before.not_answering(
                str(failed.state), str(failed), now, self.chance()
            )
        try:
            accounts.save(layout, host, account)
        except OSError as error:
            LOG.warning('[P13] %s: %s', layout.repairs, error.strerror)
            return None
        return found

    @staticmethod
    def _evidence(
        file: base_file.BaseFile, found: images.Image | None
    ) -> evidence.Evidence | None:
        """Give the digest, where it is one of the bytes of the file."""
        base = sources.Base(file.name, file.path, file.stat.size, None)
        if found is None or not images.is_as_it_is(found, base):
            return None
        hasher = images.hasher(found)
        if hasher is None or found.digest is None:
            return None
        return evidence.Evidence(found.id, hasher, found.digest)
