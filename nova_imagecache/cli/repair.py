# SPDX-License-Identifier: Apache-2.0

"""The command repair."""

import argparse
from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
import dataclasses
import logging
import signal
import threading
from typing import Any

from nova_imagecache.cache import base_file
from nova_imagecache.cli import app
from nova_imagecache.cli import columns
from nova_imagecache.cli import exit_codes
from nova_imagecache.cli import healing
from nova_imagecache.cli import listing
from nova_imagecache.cli import measuring
from nova_imagecache.cli import reading
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache.heal import assembly
from nova_imagecache.heal import notes
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import repair
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import clients
from nova_imagecache.heal import writer
from nova_imagecache import names
from nova_imagecache.scrub import turns

LOG = logging.getLogger(__name__)


class Repair(reading.Reading):
    """Put good data in the place of what is bad in a base file.

    In place, so that running guests read it at once. Each bad block gets
    data only if that has the digest which is known of the block. It comes
    from the page cache, from other files on this host, from the image
    service, and from each --source. The file keeps its inode, its owner and
    its times. A guest that has copied bad bytes to its own disk is named: the
    repair does not reach that. Where no block is bad, pages that are wrong in
    the page cache alone are dropped from it. Exit code 0: nothing is bad; 3:
    some of it still is; 1: something has stopped it, and running it again
    goes on.
    """

    columns = (
        'start', 'end', 'result', 'source', 'written', 'unreadable', 'note',
    )  # fmt: skip
    interrupted = (
        'Each block is good, or still known to be bad; run it again for the '
        'rest.'
    )
    _rewrite: writer.Rewrite = staticmethod(writer.rewrite)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the arguments."""
        # Not --bandwidth: a block is no load.
        parser = super(reading.Reading, self).get_parser(prog_name)
        parser.set_defaults(bandwidth=None)
        reading.add_progress(parser)
        parser.add_argument(
            'name', metavar='NAME', help='name of the base file'
        )
        parser.add_argument(
            '--dry-run',
            action='store_true',
            help='get the data and compare it, and write nothing',
        )
        parser.add_argument(
            '--image',
            metavar='UUID',
            help='the image that the file was made from, for the image '
            'service, where no reading has noted that',
        )
        parser.add_argument(
            '--source',
            metavar='FILE',
            action='append',
            default=[],
            help='a file that has good data: a copy of the base file from '
            'another host, or the image as it was downloaded, in a format '
            'that qemu-img reads; or ssh://[USER@]HOST, for the same file on '
            'another host, as the user of the compute service reaches it. '
            'Can be repeated',
        )
        return parser

    def load_settings(self, parsed_args: argparse.Namespace) -> Settings:
        """Keep in a child alone the right to write to base files."""
        assert isinstance(self.app, app.Shell)  # noqa: S101 for mypy
        settings = self.app.read_settings()
        if not parsed_args.dry_run:
            self._rewrite = healing.keep_rights(settings)
        measuring.prepare(settings)
        app.become_owner(settings)
        return settings

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        """Repair, and give a line per block that was bad."""
        try:
            return self._repair(parsed_args)
        finally:
            healing.let_go(self._rewrite)

    def _repair(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], Iterable[Any]]:
        self.adjust(parsed_args)
        file = listing.find_base_file(
            self.settings, parsed_args.name, 'repair'
        )
        name = file.name
        # Also what is started for it is to end then.
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_args: stop.set())
        try:
            assert isinstance(self.app, app.Shell)  # noqa: S101 for mypy
            given = assembly.sources_of(
                self.settings,
                parsed_args.source,
                clients.from_options(self.app.conf),
                watch=sources.Watch(stop),
            )
        except ValueError as error:
            raise errors.Error(str(error)) from error
        # As long as it is known what is bad: nothing tells it afterwards.
        looks = healing.Looks(self.settings, name)
        total = sum(each.end - each.start for each in looks.latest.bad)
        now = clocks.now()
        try:
            with (
                turns.urgent(self.settings, 'repair', name),
                self.progress_bar(parsed_args)(total) as progress,
            ):
                means = repair.Means(
                    self._rewrite, dry_run=parsed_args.dry_run,
                    cached=True,
                    image=parsed_args.image,
                    stop=stop,
                    progress=progress,
                    look=looks.again,
                )  # fmt: skip
                outcome = self._counted(file, given, means)
                self._note(file, parsed_args, outcome, now)
        except OSError as error:
            raise errors.Error(
                f'{names.printable(name)} cannot be repaired: {error.strerror}'
            ) from error
        self._outcome = outcome
        self._guests = healing.guests_of(file, looks, outcome)
        self._tell(outcome, file)
        if not parsed_args.dry_run:
            measuring.write(self.settings)
        return self.columns, [_row(block) for block in outcome.blocks]

    def _counted(
        self,
        file: base_file.BaseFile,
        given: Sequence[sources.Source],
        means: repair.Means,
    ) -> outcomes.Outcome:
        """Repair; what is killed meanwhile is counted by the next one."""
        ledger = knowledge.recall(file).ledger
        if means.dry_run or ledger is None:
            return repair.repair(file, given, means)
        host = self.settings.host
        bad = repair.bad_blocks(ledger)
        # Nothing of this repair depends on it.
        with contextlib.suppress(OSError):
            notes.note_begun(file.layout, host, file.name, len(bad))
        try:
            return repair.repair(file, given, means)
        except (errors.Error, OSError) as error:
            none = outcomes.Outcome(file.name, stopped=str(error))
            with contextlib.suppress(OSError):
                notes.note_by_hand(file.layout, host, none)
            raise

    def _tell(
        self, outcome: outcomes.Outcome, file: base_file.BaseFile
    ) -> None:
        for source, (state, message) in outcome.sources.items():
            if outcome.left:
                LOG.warning(
                    '[P19] %s: %s: %s',
                    source,
                    state,
                    names.printable(message),
                )
        healing.tell_guests(self._guests)
        finding = knowledge.recall(file).finding
        if not finding.harmful:
            healing.note(file.layout, outcome, self._guests)
        possible = outcomes.Result.POSSIBLE
        if outcome.stopped:
            LOG.error('[P19] %s', outcome.stopped)
            self.exit_code = exit_codes.COULD_NOT
        elif outcome.stuck or any(
            block.result is not possible for block in outcome.left
        ):
            self.exit_code = exit_codes.CORRUPTION
        elif finding.harmful and not outcome.left:
            # Not by its blocks.
            LOG.warning('[C01] %s', names.printable(finding.note))
            self.exit_code = exit_codes.CORRUPTION
        elif not outcome.blocks:
            LOG.warning(
                '[N19] %s: no block of it is known to be bad',
                names.printable(file.name),
            )

    def _note(
        self,
        file: base_file.BaseFile,
        parsed_args: argparse.Namespace,
        outcome: outcomes.Outcome,
        now: clocks.Instant,
    ) -> None:
        """Note what was repaired, and what the image service has told."""
        ledger = knowledge.recall(file).ledger
        image = parsed_args.image or (ledger.image if ledger else None)
        host = self.settings.host
        # Nothing of this repair depends on it.
        with contextlib.suppress(OSError):
            if not parsed_args.dry_run:
                notes.note_by_hand(file.layout, host, outcome)
            notes.note_told(file.layout, host, image, outcome, now)

    def summary(self) -> dict[str, Any]:
        """Say how it went, also for the guests."""
        outcome = self._outcome
        return {
            'repaired': outcome.repaired,
            'left': len(outcome.left),
            'written': outcome.written,
            'fetched': dict(outcome.fetched),
            'sources': {
                name: {'state': state, 'message': names.printable(message)}
                for name, (state, message) in outcome.sources.items()
            },
            'guests': [dataclasses.asdict(each) for each in self._guests],
            'stopped': names.printable(outcome.stopped),
        }


def _row(block: outcomes.Block) -> tuple[Any, ...]:
    origin = f' ({block.origin})' if block.origin else ''
    return (
        block.start,
        block.end,
        str(block.result),
        names.printable(f'{block.source}{origin}'),
        columns.Bytes(block.written),
        block.unreadable,
        names.printable(block.note),
    )
