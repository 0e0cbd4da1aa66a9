# SPDX-License-Identifier: Apache-2.0

"""What the commands that repair have in common."""

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import functools
import json
import logging
import os

from nova_imagecache.cache import base_file
from nova_imagecache.cache import coordination
from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import scans
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import incidents
from nova_imagecache.content import ledgers
from nova_imagecache.content import soundness
from nova_imagecache import errors
from nova_imagecache.heal import accounts
from nova_imagecache.heal import automatic
from nova_imagecache.heal import guests
from nova_imagecache.heal import notes
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import rewriters
from nova_imagecache.heal import writer
from nova_imagecache import names
from nova_imagecache.outlets import summaries
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports

LOG = logging.getLogger(__name__)


def keep_rights(settings: Settings, command: str = '') -> writer.Rewrite:
    """Keep in a child alone the right to write to base files.

    To be called before this process becomes the owner of the cache.

    :param command: of the host, as JSON, for where we have no such right
    """
    base = layouts.Layout.of(settings).base
    if os.geteuid() == 0 and os.path.isdir(base):
        try:
            return rewriters.fork(base)
        except writer.Refused as error:
            # Reading goes on all the same.
            return functools.partial(_refuse, error)
    return rewriters.Lent(base, json.loads(command) if command else ())


def _refuse(error: writer.Refused, *_request: object) -> None:
    """Write nothing, as :func:`nova_imagecache.heal.writer.rewrite`."""
    raise error


def let_go(rewrite: writer.Rewrite) -> None:
    """Give up the right to write to base files."""
    if isinstance(rewrite, rewriters.Remote | rewriters.Lent):
        rewrite.close()


def look(
    settings: Settings, name: str, ranges: Sequence[tuple[int, int]] = ()
) -> reports.FileReport:
    """See which guests a file has, and how they fare with its damage.

    :param ranges: bytes that were bad too, which is not known of them
    :raises nova_imagecache.errors.Error: it has gone
    """
    seen = pipeline.Pass(settings).preview({name: ranges})
    found = seen.only([name]).files
    if not found:
        raise errors.Changed('it has gone meanwhile')
    return found[0]


class Looks:
    """What was seen of a file and its guests while it was bad.

    :ivar latest: that is as late as may be, as all of an image may have to
        come first, and guests go on meanwhile
    """

    def __init__(self, settings: Settings, name: str) -> None:
        """Look.

        :raises nova_imagecache.errors.Error: it has gone
        """
        self._settings, self._name = settings, name
        self.latest = look(settings, name)

    def again(self) -> None:
        """Look again, before the first write, which does not depend on it."""
        with contextlib.suppress(errors.Error, OSError):
            self.latest = look(self._settings, self._name)

    def when_bad(self, outcome: outcomes.Outcome) -> reports.FileReport:
        """Give what was seen, or what is of bytes that nobody knew of.

        What guests have copied is seen afterwards as well.
        """
        known = [(each.start, each.end) for each in self.latest.bad]
        ranges = [
            (block.start, block.end)
            for block in outcome.blocks
            if block.result.is_good
            and not any(
                start <= block.start and block.end <= end
                for start, end in known
            )
        ]
        if ranges:
            with contextlib.suppress(errors.Error, OSError):
                return look(self._settings, self._name, ranges)
        return self.latest


def guests_of(
    file: base_file.BaseFile, looks: Looks, outcome: outcomes.Outcome
) -> list[guests.Guest]:
    """Say what became of each guest of a file.

    :param looks: at the file when it was bad
    """
    before = looks.when_bad(outcome)
    return [
        *guests.fates(
            before.users, before.exposures, _is_qcow2(file), outcome.blocks
        )
    ]


def _is_qcow2(file: base_file.BaseFile) -> bool:
    try:
        fd = identity.open_regular(file.path)
    except OSError:
        return False
    try:
        return ledgers.Form.of(os.pread(fd, 4, 0)) is ledgers.Form.QCOW2
    except OSError:
        return False
    finally:
        os.close(fd)


def tell_guests(found: Iterable[guests.Guest]) -> None:
    """Log what there is to do about guests."""
    for text in filter(None, map(guests.sentence, found)):
        LOG.warning('[C09] %s', text)


def note(
    layout: layouts.Layout,
    outcome: outcomes.Outcome,
    found: Iterable[guests.Guest],
) -> None:
    """Have the incident say that the file was put right, if it is."""
    good = [block for block in outcome.blocks if block.result.is_good]
    if not good or outcome.left or outcome.stopped:
        return
    if outcome.stuck:
        return
    try:
        incidents.healed(
            layout,
            outcome.name,
            tuple((block.start, block.end) for block in good),
            [
                names.printable(guest.guest)
                for guest in found
                if guest.fate is guests.Fate.STILL_DAMAGED
            ],
            clocks.now().wall,
        )
    except (errors.Error, OSError) as error:
        LOG.warning(
            '[P13] Incidents cannot be noted in %(path)s: %(error)s',
            {'path': layout.incidents, 'error': error},
        )


class Acting:
    """Does about bad files what ``corruption_action`` says."""

    def __init__(self, healer: automatic.Healer) -> None:
        """Do nothing yet."""
        self._healer = healer
        self._settings = healer.settings
        self._layout = layouts.Layout.of(self._settings)
        self._done: set[str] = set()

    def act_on(self, name: str) -> None:
        """Do about a file that is bad what is to be done.

        The caller has the turn to read in this cache.
        """
        if self._settings.corruption_action == 'report':
            return
        if name in self._done or self._healer.stop.is_set():
            return
        self._done.add(name)
        if not self._is_due(name):
            return
        try:
            self._act_on(name)
        except (errors.Error, OSError) as error:
            LOG.warning(
                '[P19] %s: nothing is done about it: %s',
                names.printable(name),
                error,
            )

    def _is_due(self, name: str) -> bool:
        account = accounts.load(self._layout, self._settings.host)
        known = account.files.get(name)
        return known is None or known.last.is_due(clocks.now())

    def _act_on(self, name: str) -> None:
        size = base_file.BaseFile.named(self._layout, name).stat.allocated
        stays = pipeline.Pass(self._settings).set_aside(name)
        if stays is None:
            summaries.note_damaged(self._layout, self._settings.host, size)
            LOG.warning(
                '[C08] Base file %s was bad, and nobody uses it: it is in the '
                'trash, and its image is fetched anew when it is needed',
                names.printable(name),
            )
            return
        if self._settings.corruption_action != 'repair':
            LOG.warning('[P12] %s stays: %s', names.printable(name), stays)
            return
        file = base_file.BaseFile.named(self._layout, name)
        looks = Looks(self._settings, name)
        outcome = self._healer.heal(name, looks.again)
        if outcome is not None:
            _tell(outcome)
            found = guests_of(file, looks, outcome)
            tell_guests(found)
            note(self._layout, outcome, found)

    def _settle(self) -> None:
        """Count the repairs that were killed, whoever made them."""
        host = self._settings.host
        if not accounts.load(self._layout, host).begun:
            return
        try:
            with coordination.coordinator(self._layout).turn():
                notes.settle(self._layout, host)
        except (errors.NotNow, OSError) as error:
            LOG.info('Repairs are counted later: %s', error)

    def act_on_all(self) -> None:
        """Go through all files that are known to be bad."""
        self._settle()
        if self._settings.corruption_action == 'report':
            return
        bad = _bad_files(self._layout)
        if {*bad} <= self._done:
            return
        try:
            with coordination.coordinator(self._layout).turn():
                for name in bad:
                    self.act_on(name)
        except errors.NotNow as error:
            LOG.info('Bad files are left for later: %s', error)


def _bad_files(layout: layouts.Layout) -> Sequence[str]:
    try:
        return [
            file.name
            for file in scans.scan(layout).files
            if file.is_base and soundness.of(file).is_bad
        ]
    except (errors.Error, OSError) as error:
        LOG.warning('[P04] %s: %s', layout.base, error)
        return []


def _tell(outcome: outcomes.Outcome) -> None:
    name = names.printable(outcome.name)
    good = sum(block.result.is_good for block in outcome.blocks)
    origins = sorted({block.source for block in outcome.blocks} - {''})
    if good:
        LOG.warning(
            '[N22] Base file %(name)s: %(good)d bad blocks are good again, '
            'with '
            'data from %(origins)s',
            {
                'name': name,
                'good': good,
                'origins': ', '.join(origins) or 'its own medium',
            },
        )
    if outcome.stopped:
        LOG.warning('[P19] %s: not repaired: %s', name, outcome.stopped)
    asked = '; '.join(
        names.printable(f'{source}: {message}')
        for source, (_state, message) in outcome.sources.items()
    )
    for block in outcome.stuck:
        LOG.warning(
            '[P19] Base file %(name)s: bytes %(start)d-%(last)d are good on '
            'the medium: %(note)s',
            {
                'name': name,
                'start': block.start,
                'last': block.end - 1,
                'note': block.note,
            },
        )
    for block in outcome.left:
        LOG.warning(
            '[P19] Base file %(name)s: bytes %(start)d-%(last)d stay bad: '
            '%(result)s %(note)s',
            {
                'name': name,
                'start': block.start,
                'last': block.end - 1,
                'result': str(block.result),
                'note': block.note or asked,
            },
        )
