# SPDX-License-Identifier: Apache-2.0

"""The evidence of the image service on a file that is read for the first time.

One small question before hours of reading, and no other: the bytes of the
image stay where they are.
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
    """Asks for the digests of images, an :data:`evidence.Ask`.

    :ivar paths: of what the host has for nova.conf
    :ivar chance: gives a number from 0 to 1 at random
    """

    settings: Settings
    paths: Sequence[str]
    watch: sources.Watch
    clock: clocks.Clock = clocks.now
    chance: Callable[[], float] = random.random

    def __call__(
        self, file: base_file.BaseFile, image: str
    ) -> evidence.Evidence | None:
        """Give the digest that all of a file should have, if there is one."""
        if names.get_cache_fname(image) != file.name:
            return None
        if not image_records.is_configured(self.paths):
            return None
        layout, host = layouts.Layout.of(self.settings), self.settings.host
        account, now = accounts.load(layout, host), self.clock()
        before = account.unanswered
        if before is not None and not before.is_due(now):
            return None
        found: images.Image | None = None
        gone = False
        try:
            found = image_records.ask(image, self.paths, self.watch)
        except sources.Unavailable as error:
            LOG.info(
                '%(name)s is read without the digest of its image: %(error)s',
                {'name': names.printable(file.name), 'error': error},
            )
            gone = error.state is State.GONE
            if error.state is State.STOPPED:
                return None
            if error.state not in _OF_THE_IMAGE:
                account = account.not_answering(
                    str(error.state), str(error), now, self.chance()
                )
        if gone or found is not None:
            account = account.seeing(image, gone, now)
            account = dataclasses.replace(account, unanswered=None)
        try:
            if account != accounts.load(layout, host):
                accounts.save(layout, host, account)
        except OSError as error:
            # Then the others are not asked for in vain either.
            LOG.warning('[P13] %s: %s', layout.repairs, error.strerror)
            return None
        return self._evidence(file, found)

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
