# SPDX-License-Identifier: Apache-2.0

"""Comparing base files with their images, for the command verify."""

from collections.abc import Sequence
import logging
import os

from nova_imagecache.cache import base_file
from nova_imagecache.cache import layouts
from nova_imagecache.cli import app
from nova_imagecache.cli import exit_codes
from nova_imagecache import errors
from nova_imagecache.heal import origin
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import clients
from nova_imagecache.heal.sources import image_service
from nova_imagecache import names
from nova_imagecache import outlets
from nova_imagecache.passes import noting
from nova_imagecache.passes import pipeline
from nova_imagecache.passes import reports
from nova_imagecache.scrub import courses

LOG = logging.getLogger(__name__)


def verify(
    command: app.NodeCommand,
    chosen: Sequence[str],
    image: str | None,
    bar: courses.ProgressBar,
) -> tuple[reports.Report, int]:
    """Compare some files; give how they are then, and the exit code.

    :param image: UUID of the image of the only one, where it is said
    """
    settings = command.settings
    layout = layouts.Layout.of(settings)
    assert isinstance(command.app, app.Shell)  # noqa: S101 for mypy
    os.makedirs(layout.temporary, exist_ok=True)
    source = image_service.ImageService(
        clients.from_options(command.app.conf), layout.temporary
    )
    other, untold = False, False
    for name in chosen:
        shown = names.printable(name)
        try:
            file = base_file.BaseFile.named(layout, name)
            finding = origin.verify(settings, file, source, image, bar)
            if finding.problem:
                other = True
                LOG.error('[C04] %s: %s', shown, finding.note)
        except (sources.Unavailable, errors.Error) as error:
            untold = True
            LOG.error(
                '[P08] %s was not compared with its image: %s%s',
                shown,
                error,
                _last_copy(error),
            )
        except OSError as error:
            untold = True
            LOG.error('[P08] %s cannot be compared: %s', shown, error.strerror)
    report = pipeline.Pass(settings).preview().only(list(chosen))
    noting.note_guests(layout, report)
    outlets.tell_damage(report)
    code = exit_codes.of_files(report)
    if other:
        code = exit_codes.CORRUPTION
    return report, code or (exit_codes.COULD_NOT if untold else code)


def _last_copy(error: Exception) -> str:
    """Say what it means that there is no such image."""
    gone = sources.State.NOT_FOUND
    if isinstance(error, sources.Unavailable) and error.state is gone:
        return (
            '; if it is deleted, this file is the last copy: keep it, and '
            'nothing can be had from the image service to repair it'
        )
    return ''
