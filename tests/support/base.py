# SPDX-License-Identifier: Apache-2.0

"""What all tests share: a test case, a clock to set, and options."""

from collections.abc import Iterator
import contextlib
import logging
import time
from typing import Any

import fixtures
import hypothesis
from oslo_config import cfg
import testtools

from nova_imagecache import clocks
from nova_imagecache import hook

# The same examples each time, however slow the machine.
hypothesis.settings.register_profile(
    'deterministic', deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile('deterministic')

KIB = 1024
MIB = 1024 * KIB
HOUR = 3600
DAY = 24 * HOUR


class FakeClock:
    """A wall clock that tests set, beside the time since boot."""

    def __init__(self) -> None:
        self.wall = time.time()
        self.boottime = 10.0 * DAY
        self.boot_id = 'first-boot'

    @classmethod
    def of_this_machine(cls) -> 'FakeClock':
        """Begin as what a program goes by whose clock cannot be set."""
        clock, now = cls(), clocks.now()
        clock.boottime, clock.boot_id = now.boottime, now.boot_id
        return clock

    def __call__(self) -> clocks.Instant:
        return clocks.Instant(self.wall, self.boottime, self.boot_id)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.boottime += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock, without any time passing."""
        self.wall += seconds


@contextlib.contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put something else in the place of an attribute for a while."""
    real = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)


def make_conf(**values: Any) -> cfg.ConfigOpts:
    """Make the options of a host, with values in [image_cache]."""
    conf = cfg.ConfigOpts()
    hook.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    instances_path = values.pop('instances_path', None)
    if instances_path is not None:
        conf.set_override('instances_path', instances_path)
    # No libvirt that knows of what tests make.
    values = {'witnesses': ['instances', 'overlays', 'locks']} | values
    for name, value in values.items():
        conf.set_override(name, value, group='image_cache')
    return conf


class TestCase(testtools.TestCase):
    """A test that keeps what is logged, and shows it when it fails."""

    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
