# SPDX-License-Identifier: Apache-2.0

"""Verifying base files here and now, in the process that asks for it."""

from collections.abc import Sequence
import contextlib
import dataclasses

from nova_imagecache.cache import layout as layouts
from nova_imagecache.cache import locks
from nova_imagecache import clock as clocks
from nova_imagecache import conf as confs
from nova_imagecache import decide
from nova_imagecache import errors
from nova_imagecache.integrity import checksum
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import limiter
from nova_imagecache.integrity import reader
from nova_imagecache.integrity import scrub
from nova_imagecache import look

# For which a person waits while a scrub finishes the block it is at. One that
# reads slowly takes four seconds for it.
_PATIENCE_SECONDS = 30


def verify(
    settings: confs.Settings,
    view: look.View,
    decisions: Sequence[decide.Decision],
    clock: clocks.Clock,
    progress_bar: checksum.ProgressBar,
    urgent: bool,
) -> dict[str, knowledges.Finding]:
    """Read the files that are to be verified.

    :param urgent: whether a scrub that is at work is to give way
    :returns: what was found, by name; of each file that was to be verified
    """
    layout = layouts.Layout.of(settings)
    chosen = [decision.file for decision in decisions if decision.verify]
    if not chosen:
        return {}
    findings = {}
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                locks.wanted_scrub_lock(layout, _PATIENCE_SECONDS)
                if urgent
                else locks.scrub_lock(layout)
            )
        except errors.NotNow as error:
            # The other one's findings are those of the next pass.
            problem = urgent or isinstance(error, errors.LockBroken)
            return {
                file.name: view.entries[file.name].known.finding.postponed(
                    str(error), problem
                )
                for file in chosen
            }
        total = sum(file.status.allocated for file in chosen)
        progress = stack.enter_context(progress_bar(total))
        method = scrub.Method(
            settings.checksum_algorithm,
            reader.Means(
                limiter.Limiter(settings.scrub_bandwidth), progress=progress
            ),
            clock,
        )
        for file in chosen:
            # A scrub may have learnt more while it was waited for.
            known = look.entry_of(layout, file, view.state).known
            if not decide.settled(file, view.state.sighting(file)):
                findings[file.name] = known.finding.postponed(
                    'it is seen for the first time, and may still grow'
                )
                continue
            job = look.job_of(file, known, view.state, view.now, settings.host)
            # Whoever asks for it wants to know of all of the file.
            job = dataclasses.replace(job, afresh=urgent)
            findings[file.name] = scrub.scrub(layout, job, method)
    return findings
