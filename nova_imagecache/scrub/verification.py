# SPDX-License-Identifier: Apache-2.0

"""Verifying base files here and now, in the process that asks for it."""

from collections.abc import Sequence
import contextlib
import dataclasses

from nova_imagecache.cache import base_file
from nova_imagecache.cache import coordination
from nova_imagecache.cache import layouts
from nova_imagecache.cache import states
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache.host import ReadAsRoot
from nova_imagecache.scrub import activities
from nova_imagecache.scrub import courses
from nova_imagecache.scrub import limiters
from nova_imagecache.scrub import one_file
from nova_imagecache.scrub import queues
from nova_imagecache.scrub import readers
from nova_imagecache.scrub import schedule
from nova_imagecache.scrub import turns


def verify(
    settings: Settings,
    files: Sequence[base_file.BaseFile],
    state: states.State,
    clock: clocks.Clock,
    progress_bar: courses.ProgressBar,
    urgent: bool,
    read_as_root: ReadAsRoot | None = None,
) -> tuple[dict[str, knowledge.Finding], str | None]:
    """Read base files, and compare them with what is known of them.

    :param state: what earlier passes remember
    :param urgent: whether a scrub that is at work is to give way
    :param read_as_root: what the host lends for files that we may not read
    :returns: what was found, by name, of each file; and why it cannot be
        noted in the state, if it cannot
    """
    if not files:
        return {}, None
    layout = layouts.Layout.of(settings)
    now = clock()
    findings = {}
    with contextlib.ExitStack() as stack:
        turn: turns.Turn | None = None
        try:
            if urgent:
                turn = stack.enter_context(
                    turns.urgent(settings, 'verify', clock=clock)
                )
            else:
                stack.enter_context(coordination.coordinator(layout).turn())
        except errors.NotNow as error:
            # The other one's findings are those of the next pass.
            problem = urgent or isinstance(error, errors.LockBroken)
            return {
                file.name: knowledge.recall(file).finding.postponed(
                    str(error), problem
                )
                for file in files
            }, None
        activities.end_dead(layout, now)
        total = sum(file.stat.size for file in files)
        show = stack.enter_context(progress_bar(total))
        if turn is not None:
            turn.expect(total)
            show = courses.both(show, turn.passed)
        course = courses.Course(show)
        method = one_file.Method(
            settings.checksum_algorithm,
            readers.Means(
                limiters.Limiter(settings.scrub_bandwidth),
                # A person can interrupt what reads in another thread.
                ahead=urgent,
                passed=course.passed,
            ),
            clock,
            read_as_root=read_as_root,
        )
        histories = {}
        for file in files:
            if turn is not None:
                turn.at(file.name)
            # A scrub may have learnt more while it was waited for.
            known = knowledge.recall(file)
            if not schedule.complete(file, state.sighting(file)):
                findings[file.name] = known.finding.postponed(
                    'it is seen for the first time, and may still grow'
                )
                continue
            job = queues.job_of(file, known, state, now, settings.host)
            # Whoever asks for it wants to know of all of the file.
            job = dataclasses.replace(job, afresh=urgent)
            with course.through(file.stat.size):
                finding = findings[file.name] = one_file.scrub(job, method)
            if finding.history is not None:
                histories[file] = finding.history
    failure = queues.note_histories(layout, histories, state, clock())
    return findings, failure
