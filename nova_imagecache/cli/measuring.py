# SPDX-License-Identifier: Apache-2.0

"""What the commands that make metrics have in common."""

import argparse
import contextlib
import logging

from nova_imagecache.cli import app
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache.outlets import exposition
from nova_imagecache.outlets import figures

LOG = logging.getLogger(__name__)


class Measuring(app.NodeCommand):
    """A command that shows metrics."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run it, with what it takes imported before it becomes the owner.

        :raises nova_imagecache.errors.Error: that is not installed
        """
        exposition.client()
        return super().run(parsed_args)


def write(settings: Settings) -> None:
    """Write the file for node_exporter, with what is known by now."""
    for problem in figures.write(settings):
        LOG.warning('[P13] %s', problem)


def load_settings(shell: app.Shell) -> Settings:
    """Find out which node, and become who may act on it and write metrics.

    :raises oslo_config.cfg.Error: a value makes no sense
    :raises nova_imagecache.errors.Error: there is no such directory
    """
    settings = shell.read_settings()
    prepare(settings)
    app.become_owner(settings)
    return settings


def prepare(settings: Settings) -> None:
    """Import what metrics take, likewise, for who may write them as well.

    Who writes them says what is the matter, if anything is.
    """
    if settings.metrics_textfile:
        with contextlib.suppress(errors.Error):
            exposition.client()
