# SPDX-License-Identifier: Apache-2.0

"""Nodes of any size, and passes over them in processes of their own.

What is measured imports what a pass does, and no more: that is in its memory
too.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import importlib
import json
import logging
import os
import resource
import subprocess
import sys
import threading
import time
from typing import Any

from oslo_config import cfg
from oslo_utils import units

from nova_imagecache.cache import inventories
from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache import clocks
from nova_imagecache.conf import Settings
from nova_imagecache import names
from nova_imagecache.passes import pipeline

_BASE_SIZE = units.Gi
_DAY = 24 * 3600
_TICK_SECONDS = 0.01

# What a pass imports late, and a service that makes passes has long imported.
_AT_HAND = ('psutil',)

#: What was measured, by name: ``seconds``, ``peak`` (bytes of memory),
#: ``removed`` (files), ``locked`` and ``ticks`` (seconds at most), and
#: ``held`` (seconds).
Values = dict[str, float]


def settings_of(path: str) -> Settings:
    """Give the settings of a node that has no libvirt."""
    return Settings(path, witnesses=('instances', 'overlays', 'locks'))


def base_name(number: int) -> str:
    """Give the name of one of the base files."""
    return names.get_cache_fname(str(number))


def build(
    path: str,
    guests: int,
    base_files: int | None = None,
    unused: int = 0,
    named: str | None = None,
    files: tuple[str, ...] = (),
) -> None:
    """Build a node; real disks, of which one is made by qemu-img.

    The others are copies with another name in their header, of the same
    length: ten thousand processes would take minutes.

    :param base_files: those that are used; by default one a guest
    :param unused: base files that nobody uses
    :param named: where the headers say that it is; by default, where it is
    :param files: beside the disk of each guest
    """
    from nova_imagecache.fetch import images

    base_files = guests if base_files is None else base_files
    layout = layouts.Layout.of(settings_of(path))
    there = layouts.Layout.of(settings_of(named or path))
    os.makedirs(layout.base)
    os.makedirs(layout.locks)
    for number in range(base_files + unused):
        # Nova leaves the lock under which it has fetched a file.
        lock = names.lock_name(base_name(number))
        with open(os.path.join(layout.locks, f'nova-{lock}'), 'xb'):
            pass
        with open(layout.file(base_name(number)), 'xb') as file:
            file.truncate(_BASE_SIZE)
    made = os.path.join(path, 'template')
    image = images.Image('raw', _BASE_SIZE)
    # A header names what need not be there yet.
    first = there.file(base_name(0))
    if there == layout:
        images.create_overlay(made, first, image, None)
    else:
        subprocess.run(
            ['qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-F', 'raw',
             '-b', first, made, str(_BASE_SIZE)],
            check=True,
        )  # fmt: skip
    with open(made, 'rb') as file:
        template = file.read()
    os.unlink(made)
    for number in range(guests):
        directory = os.path.join(path, f'guest-{number}')
        os.mkdir(directory)
        name = base_name(number % base_files)
        disk = template.replace(base_name(0).encode(), name.encode())
        with open(os.path.join(directory, 'disk'), 'xb') as file:
            file.write(disk)
        for name in files:
            with open(os.path.join(directory, name), 'xb') as file:
                file.write(b'a guest')


def age(path: str, seconds: int = _DAY) -> None:
    """Have all that guests have be so old, and be changed just now."""
    then = time.time() - seconds
    for entry in os.scandir(path):
        if entry.name.startswith('guest-'):
            for each in os.scandir(entry):
                os.utime(each, (then, then))
            os.utime(entry, (then, then))


def forget(path: str) -> None:
    """Have the next pass remember nothing of what guests have."""
    settings = settings_of(path)
    inventories.forget(layouts.Layout.of(settings), settings.host)


def later() -> clocks.Instant:
    """Read the clocks as they will be when files are old enough to go."""
    now = clocks.now()
    return dataclasses.replace(
        now, wall=now.wall + 2 * _DAY, boottime=now.boottime + 2 * _DAY
    )


@contextlib.contextmanager
def ticking(values: Values) -> Iterator[None]:
    """Note for how long another thread was kept from running at most."""
    over = threading.Event()
    gaps = [0.0]

    def tick() -> None:
        last = time.perf_counter()
        while not over.is_set():
            time.sleep(_TICK_SECONDS)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        values['ticks'] = max(gaps)


@contextlib.contextmanager
def _noting_locks(values: Values) -> Iterator[None]:
    """Note for how long any of Nova's locks was held at most."""
    values.update(locked=0.0, locks=0)
    real = locks.nova_lock

    @contextlib.contextmanager
    def nova_lock(*args: Any, **kwargs: Any) -> Iterator[None]:
        with real(*args, **kwargs):
            start = time.perf_counter()
            try:
                yield
            finally:
                held = time.perf_counter() - start
                values['locked'] = max(values['locked'], held)
                values['locks'] += 1

    locks.nova_lock = nova_lock
    try:
        yield
    finally:
        locks.nova_lock = real


def make_pass(path: str, what: str) -> Values:
    """Make a pass.

    :param what: ``pass``; ``later``, when files are old enough to go; or
        ``ticks``, beside a thread that runs every 10 ms
    """
    for name in _AT_HAND:
        importlib.import_module(name)
    values: Values = {}
    made = pipeline.Pass(
        settings_of(path), clock=later if what == 'later' else clocks.now
    )
    with contextlib.ExitStack() as stack:
        if what == 'later':
            stack.enter_context(_noting_locks(values))
        if what == 'ticks':
            stack.enter_context(ticking(values))
        start = time.perf_counter()
        report = made.run()
        values['seconds'] = time.perf_counter() - start
    assert not report.problems and not report.vetoes, report
    values['removed'] = len(report.removed)
    return values


def hold(path: str, apart: bool) -> Values:
    """Have a manager make a pass, as the periodic task of a host does.

    What is held is the thread that asks for it; and what ticks is another
    one, which under eventlet is green.
    """
    from nova_imagecache import hook

    conf = cfg.ConfigOpts()
    hook.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override('instances_path', path)
    settings = settings_of(path)
    conf.set_override('witnesses', [*settings.witnesses], group='image_cache')
    guests = [
        {'uuid': name, 'image_ref': 'image', 'host': conf.host}
        for name in os.listdir(path)
        if name.startswith('guest-')
    ]
    # The file system is not one that a report has nothing to say of.
    logging.disable(logging.WARNING)
    manager = hook.ImageCacheManager(conf, apart=apart)
    values: Values = {}
    with ticking(values):
        start = time.perf_counter()
        assert manager.begin(None, guests)
        values['held'] = time.perf_counter() - start
        report = manager.wait()
        values['seconds'] = time.perf_counter() - start
    if apart:
        assert report and report.files and not report.problems, report
    return values


def measure(
    file: str, path: str, what: str, launcher: Sequence[str] = ()
) -> Values:
    """Do something once, in a process of its own.

    :param file: the benchmark, which has :func:`answer` do it
    :param launcher: what of Python's arguments has it run
    """
    done = subprocess.run(
        [
            *(sys.executable, *launcher, file),
            *('--child', what, '--directory', path),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    values: Values = json.loads(done.stdout)
    return values


def answer(
    path: str, what: str, works: dict[str, Callable[[str], object]]
) -> None:
    """Do it here, and say what it took.

    :param works: what is no pass, by name
    """
    if what in works:
        start = time.perf_counter()
        works[what](path)
        values = {'seconds': time.perf_counter() - start}
    elif what in ('here', 'apart'):
        values = hold(path, what == 'apart')
    else:
        values = make_pass(path, what)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * units.Ki
    print(json.dumps({**values, 'peak': peak}))
