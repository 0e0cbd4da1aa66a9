# SPDX-License-Identifier: Apache-2.0

"""Our pass beside that of Nova's own manager, over the same real node.

Needs Nova with its tests, so it has an environment of its own, bench-nova. The
database is the one of Nova's tests (sqlite, in memory), and both managers ask
it. The rounds alternate, and every base file is touched by both. The libvirt
that ours asks as well is libvirt's own test driver, in this process. Nova's
tests bring eventlet in, so both run under it. Our pass is made here, to be
compared with Nova's, and then by a process of its own, as it is on a node.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any
import unittest
from unittest import mock
import uuid

import libvirt
import nodes
from nova import context as contexts
from nova import objects
import nova.privsep
from nova import test
from nova.virt.libvirt import imagecache
from oslo_config import cfg
from oslo_utils import units

from nova_imagecache.nova import manager
from nova_imagecache.witnesses import overlays

GUESTS = 500
BASE_FILES = 100
ROUNDS = 3

_BASE_SIZE = units.Gi


class Bench(test.TestCase):
    """Not a test: what it finds is printed, and the targets are checked."""

    def setUp(self) -> None:
        """Build the node and its database."""
        super().setUp()
        directory = tempfile.TemporaryDirectory(dir='/var/tmp')
        self.addCleanup(directory.cleanup)
        self.flags(instances_path=directory.name)
        self.base = os.path.join(directory.name, '_base')
        os.makedirs(self.base)
        # In this process: there is no daemon to wait for.
        nova.privsep.sys_admin_pctxt.set_client_mode(False)
        self.domains: list[str] = []
        self.context = contexts.get_admin_context()
        self.images = [str(uuid.uuid4()) for _image in range(BASE_FILES)]
        for image in self.images:
            path = os.path.join(self.base, imagecache.get_cache_fname(image))
            with open(path, 'xb') as file:
                file.truncate(_BASE_SIZE)
        for number in range(GUESTS):
            self.add_guest(directory.name, number)
        node = os.path.join(directory.name, 'node.xml')
        with open(node, 'w') as file:
            file.write(f'<node>{"".join(self.domains)}</node>')
        connection = libvirt.open(f'test://{node}')
        self.ours = manager.NovaImageCacheManager(lambda: connection)

    def add_guest(self, path: str, number: int) -> None:
        """Make an instance with a disk, swap and an ephemeral device."""
        image = self.images[number % BASE_FILES]
        instance = objects.Instance(
            self.context,
            uuid=str(uuid.uuid4()),
            image_ref=image,
            kernel_id='',
            ramdisk_id='',
            host=cfg.CONF.host,
            project_id='project',
            user_id='user',
        )
        instance.create()
        for guest_format, size in (('swap', 64), (None, 1)):
            objects.BlockDeviceMapping(
                self.context,
                instance_uuid=instance.uuid,
                source_type='blank',
                destination_type='local',
                guest_format=guest_format,
                volume_size=size,
                boot_index=-1,
            ).create()
        directory = os.path.join(path, instance.uuid)
        os.mkdir(directory)
        base = os.path.join(self.base, imagecache.get_cache_fname(image))
        disk = os.path.join(directory, 'disk')
        subprocess.run(
            [
                *('qemu-img', 'create', '-q', '-f', 'qcow2'),
                *('-F', 'raw', '-b', base, disk),
            ],
            check=True,
        )
        self.domains.append(
            f'<domain type="test"><name>instance-{number}</name>'
            f'<uuid>{instance.uuid}</uuid><memory>1024</memory>'
            '<os><type>hvm</type></os><devices><disk type="file">'
            f'<source file="{disk}"/><target dev="vda"/>'
            '</disk></devices></domain>'
        )

    def instances(self) -> Any:
        """Ask for the instances, as the periodic task does."""
        return objects.InstanceList.get_by_filters(
            self.context, {'deleted': False}, expected_attrs=[]
        )

    def parts(self, owner: Any, name: str, work: Any) -> tuple[float, float]:
        """Time something, and one function in it."""
        inner = 0.0
        real = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            nonlocal inner
            start = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                inner += time.perf_counter() - start

        with mock.patch.object(owner, name, timed):
            start = time.perf_counter()
            work()
            return time.perf_counter() - start, inner

    def test_bench(self) -> None:
        """Measure both in turn."""
        theirs = imagecache.ImageCacheManager()
        rows: dict[str, list[float]] = {}

        def note(name: str, value: float) -> None:
            rows.setdefault(name, []).append(value)

        # None of the comparison is in another process.
        apart, self.ours._apart = self.ours._apart, None
        listed = self.instances()
        self.assertEqual(GUESTS, len(listed))
        bdms = objects.BlockDeviceMappingList
        for _round in range(ROUNDS):
            whole, disks = self.parts(
                theirs,
                '_list_backing_images',
                lambda: theirs.update(self.context, listed),
            )
            note('Nova: whole pass', whole)
            note('Nova: users from disks', disks)
            whole, disks = self.parts(
                overlays.OverlayWitness,
                'look',
                lambda: self.assertEqual(
                    (), self.ours.update(self.context, listed).vetoes
                ),
            )
            note('ours: whole pass', whole)
            note('ours: users from disks', disks)
            ticks: nodes.Values = {}
            self.ours._apart = apart
            # On a node this query waits for the conductor, and yields.
            devices = bdms.bdms_by_instance_uuid(
                self.context, [each.uuid for each in listed]
            )
            with nodes.ticking(ticks):
                start = time.perf_counter()
                self.assertTrue(self.ours.begin(self.context, listed, devices))
                note('apart: thread held', time.perf_counter() - start)
                report = self.ours.wait()
            assert report is not None
            self.assertEqual((), report.problems + report.vetoes)
            note('apart: no thread runs', ticks['ticks'])
            self.ours._apart = None
            for name, work in (
                ('query for devices', lambda: bdms.bdms_by_instance_uuid(
                    self.context, [each.uuid for each in listed]
                )),
                ('query for instances', self.instances),
                ('touching through privsep', lambda: [
                    nova.privsep.path.utime(os.path.join(self.base, each))
                    for each in os.listdir(self.base)
                ]),
            ):  # fmt: skip
                start = time.perf_counter()
                work()
                note(name, time.perf_counter() - start)
        self.ours.stop()
        medians = {name: statistics.median(rows[name]) for name in rows}
        print(f'{GUESTS} guests, {BASE_FILES} base files, {ROUNDS} rounds')
        for name, values in rows.items():
            print(
                f'  {name + ":":<28} {medians[name]:8.4f} s '
                f'({min(values):.4f} to {max(values):.4f})'
            )
        reached = True
        for what, least in (('users from disks', 100), ('whole pass', 20)):
            ratio = medians[f'Nova: {what}'] / medians[f'ours: {what}']
            reached &= ratio >= least
            print(
                f'  {what + ", Nova / ours:":<28} {ratio:8.1f}, target {least}'
            )
        for name, most in (
            ('apart: thread held', 1),
            ('apart: no thread runs', 0.2),
        ):
            longest = max(rows[name])
            reached &= longest < most
            print(
                f'  {name + " at most:":<28} {longest:8.4f} s, target {most}'
            )
        self.assertTrue(reached, 'a target was not reached')


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
