# SPDX-License-Identifier: Apache-2.0

"""How long a pass takes, beside one ``qemu-img info`` per guest.

A node of real qcow2 overlays over sparse base files, each guest with a raw
disk beside its overlay that has just been written. Checksums are off: this
is what a pass costs beyond reading checksummed data. Its peer is how stock
Nova learns which base file a guest uses, without the prlimit that Nova adds.

And how long a manager's update takes while its scrub reads a large file,
beside one for which there is nothing to scrub.
"""

import argparse
from collections.abc import Callable
import os
import statistics
import subprocess
import tempfile
import time

from oslo_config import cfg

from nova_imagecache.cache import coordination
from nova_imagecache.cache import layouts
from nova_imagecache.conf import Settings
from nova_imagecache.fetch import images
from nova_imagecache import hook
from nova_imagecache import names
from nova_imagecache.passes import pipeline

_BASE_SIZE = 1 << 30


def build(layout: layouts.Layout, guests: int, base_files: int) -> list[str]:
    """Build a node; give the paths of the guests' disks."""
    os.makedirs(layout.base)
    bases = []
    for number in range(base_files):
        path = layout.file(names.get_cache_fname(str(number)))
        with open(path, 'xb') as file:
            file.truncate(_BASE_SIZE)
        bases.append(path)
    disks = []
    for number in range(guests):
        directory = os.path.join(layout.instances, f'guest-{number}')
        os.mkdir(directory)
        disk = os.path.join(directory, 'disk')
        image = images.Image('raw', _BASE_SIZE)
        images.create_overlay(disk, bases[number % base_files], image, None)
        disks.append(disk)
        with open(os.path.join(directory, 'disk.local'), 'xb') as file:
            file.write(b'a guest' * 1024)
    return disks


def seconds(work: Callable[[], object]) -> float:
    """Time something once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Build a node, measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--guests', type=int, default=1000)
    parser.add_argument('--base-files', type=int, default=200)
    parser.add_argument('--rounds', type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        settings = Settings(
            instances_path=path, witnesses=("overlays", "locks")
        )
        layout = layouts.Layout.of(settings)
        print(
            f'{options.guests} guests, {options.base_files} base files, '
            f'median of {options.rounds} rounds'
        )
        disks = build(layout, options.guests, options.base_files)

        def make_pass() -> None:
            report = pipeline.Pass(settings).run()
            used = sum(len(file.users) for file in report.files)
            assert used == options.guests, report

        def ask_qemu_img() -> None:
            for disk in disks:
                subprocess.run(
                    ['qemu-img', 'info', '-U', '--output=json', disk],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )

        ours = []
        peers = []
        for _round in range(options.rounds):
            ours.append(seconds(make_pass))
            peers.append(seconds(ask_qemu_img))
        our, peer = statistics.median(ours), statistics.median(peers)
        print(f'one pass:                    {our:8.3f} s')
        print(f'one qemu-img info per guest: {peer:8.3f} s')
        print(f'ratio:                       {peer / our:8.1f}')
        measure_update(layout, options.rounds)


def make_manager(
    layout: layouts.Layout, interval: int
) -> hook.ImageCacheManager:
    """Make a manager that has its base files verified so often."""
    conf = cfg.ConfigOpts()
    hook.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override('instances_path', layout.instances)
    for name, value in (
        ('checksum_base_images', True),
        ('checksum_interval_seconds', interval),
        ('witnesses', ['instances', 'overlays', 'locks']),
    ):
        conf.set_override(name, value, group='image_cache')
    return hook.ImageCacheManager(conf)


def measure_update(layout: layouts.Layout, rounds: int) -> None:
    """Measure update with and without a scrub at work."""
    # Longer at the default limit than this takes.
    with open(layout.file(names.get_cache_fname('0')), 'r+b') as file:
        for _mebibyte in range(512):
            file.write(os.urandom(1 << 20))
    coordinator = coordination.coordinator(layout)
    idle = make_manager(layout, 10**9)
    busy = make_manager(layout, 0)
    try:
        busy.update(None, [])
        while not coordinator.taken():
            time.sleep(0.1)
        at_work = []
        without = []
        for _round in range(rounds):
            at_work.append(seconds(lambda: busy.update(None, [])))
            without.append(seconds(lambda: idle.update(None, [])))
        assert coordinator.taken(), 'the scrub has ended already'
    finally:
        busy.stop()
    while coordinator.taken():
        time.sleep(0.1)
    our, peer = statistics.median(at_work), statistics.median(without)
    print(f'update, a scrub at work:     {our:8.3f} s')
    print(f'update, nothing to scrub:    {peer:8.3f} s')
    print(f'ratio:                       {our / peer:8.2f}')


if __name__ == '__main__':
    main()
