# SPDX-License-Identifier: Apache-2.0

"""A base file and its guests, from the first boot to the trash."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time

import msgspec

from integration import node as nodes
from integration import stories
from integration import system
from nova_imagecache.cache import layouts
from nova_imagecache.cache import states
from nova_imagecache import clocks

_SIZE = 96 * stories.MIB
_OLD_SECONDS = 700


def _age(path: pathlib.Path) -> None:
    """Have a base file look as if nobody had used it for long."""
    old = time.time() - _OLD_SECONDS
    os.utime(path, (old, old))


class ScenarioTest(stories.StoryTestCase):
    expected = (
        '[C01] Base file ',
        'is corrupt, and stays: ',
        'used all the same',
        'in the trash, and made anew',
    )

    def forget(self) -> None:
        """Have passes forget when they saw a user."""
        self.stop_compute()
        os.unlink(self.own / 'state')

    def grow_old(self, stop: bool = True) -> None:
        """Have passes take the base file for one of long ago."""
        if stop:
            self.stop_compute()
        _age(self.base)
        now = clocks.now()
        before = dataclasses.replace(
            now,
            wall=now.wall - _OLD_SECONDS,
            boottime=now.boottime - _OLD_SECONDS,
        )
        layout = layouts.Layout.at(str(nodes.INSTANCES), '_base')

        def age(state: states.State) -> states.State:
            name = self.base.name
            old = msgspec.structs.replace(
                state.files[name], seen=before, last_used=None
            )
            return dataclasses.replace(state, files={**state.files, name: old})

        states.amend(layout, age)
        shutil.chown(layout.state, nodes.USER, nodes.USER)

    # The story.

    def test_01_a_node_is_set_up(self) -> None:
        self.upload(os.urandom(_SIZE))
        type(self).flavor = self.cloud.make_flavor('small')
        self.stack.start_compute()
        self.assertEqual(nodes.USER, system.user_of(self.stack.compute.pid))

    def test_02_a_guest_boots_without_a_checksum(self) -> None:
        before = system.bytes_read(self.stack.compute.pid)
        type(self).guest = self.boot('first')
        self.wait_for_status(self.guest, 'ACTIVE')
        # Python reads its modules from files, too.
        read = system.bytes_read(self.stack.compute.pid) - before
        self.assertLess(read, _SIZE // 2, 'the base file was read back')
        self.assertEqual([self.base.name], os.listdir(nodes.BASE))
        self.assertEqual(self.content, self.base.read_bytes())
        self.assertEqual('libvirt-qemu', system.owner(self.base))
        (qemu,) = system.processes('qemu-system-x86_64', self.guest)
        self.assertEqual('libvirt-qemu', system.user_of(qemu))
        helpers = system.processes(
            'privsep-helper', 'nova.privsep.sys_admin_pctxt'
        )
        self.assertIn('root', map(system.user_of, helpers))

    def test_03_passes_keep_a_checksum_and_see_the_guest(self) -> None:
        _age(self.base)
        self.restart(checksum_interval=20)
        system.wait_for(self.sidecar.exists, 120, 'a checksum is there')
        digest = hashlib.sha1(self.content, usedforsecurity=False).hexdigest()
        self.assertIn(digest, self.sidecar.read_text())
        self.assertEqual(nodes.USER, system.owner(self.sidecar))
        self.assertTrue((self.own / 'ledgers' / self.base.name).exists())
        # It is libvirt-qemu's, so Nova's own context has touched it.
        self.assertGreater(self.base.stat().st_mtime, time.time() - 60)
        self.assertEqual({self.base.name: {self.guest}}, self.users())

    def test_04_a_flipped_bit_is_found(self) -> None:
        code, status = self.ours('status')
        self.assertEqual((0, []), (code, status['damaged']))
        since = len(self.log())
        stories.flip_bit(self.base)
        (damage,) = system.wait_for(
            lambda: self.ours('status')[1]['damaged'],
            120,
            'the damage is found',
        )
        self.assertEqual(self.base.name, damage['name'])
        self.assertEqual(self.image, damage['image'])
        self.assertEqual('corrupt', damage['checksum'])
        self.assertEqual([self.guest], damage['users'])
        self.assertEqual(
            [
                {
                    'start': 4 * stories.MIB,
                    'end': 8 * stories.MIB,
                    'damage': 'corrupt',
                }
            ],
            damage['ranges'],
        )
        (exposure,) = damage['exposures']
        self.assertEqual(self.guest, exposure['guest'])
        text = f'Base file {self.base} (image {self.image}) is corrupt'
        self.wait_for_log(text, since)
        line = self.log()[since:].partition(text)[2].partition('\n')[0]
        self.assertIn(f'Guests that read it: {self.guest}', line)
        self.assertEqual(3, self.ours('verify', self.base.name)[0])

    def test_05_no_new_disk_is_made_of_it(self) -> None:
        before = os.listdir(nodes.INSTANCES)
        second = self.boot('second')
        fault = self.wait_for_status(second, 'ERROR').fault
        self.assertIn('Exhausted all hosts', fault['message'])
        self.wait_for_log(
            f'Base file {self.base.name} of image {self.image} is corrupt, '
            'and stays: used by 1 guest'
        )
        self.assertFalse((nodes.INSTANCES / second / 'disk').exists())
        self.cloud.delete(second)
        self.assertEqual(set(before), set(os.listdir(nodes.INSTANCES)))

    def test_06_the_guest_that_has_it_is_started_again(self) -> None:
        (before,) = system.processes('qemu-system-x86_64', self.guest)
        since = len(self.log())
        self.cloud.reboot_hard(self.guest)
        self.wait_for_status(self.guest, 'ACTIVE')
        (after,) = system.processes('qemu-system-x86_64', self.guest)
        self.assertNotEqual(before, after)
        self.wait_for_log('used all the same', since)

    def test_07_the_base_goes_with_its_last_guest(self) -> None:
        self.cloud.delete(self.guest)
        self.wait_for_pass()
        self.assertTrue(self.base.exists(), 'it is not old enough')
        self.grow_old()
        self.restart()
        system.wait_for(
            lambda: not self.base.exists(), 120, 'the base file goes'
        )
        trash = self.own / 'trash'
        (trashed,) = (
            each
            for each in os.listdir(trash)
            if not each.endswith(('.sha1', '.ledger'))
        )
        self.assertEqual(self.base.name, trashed.partition('.')[0])
        self.wait_for_pass()
        self.assertTrue((trash / trashed).exists(), 'it is not old enough')
        self.assertFalse(self.sidecar.exists())
        self.forget()
        # The name tells since when it is there.
        older = f'{self.base.name}.{int(time.time() - _OLD_SECONDS):08x}'
        for each in os.listdir(trash):
            (trash / each).rename(trash / each.replace(trashed, older))
        self.restart()
        system.wait_for(
            lambda: not os.listdir(trash), 120, 'the trash is emptied'
        )

    def test_08_images_are_fetched_before_they_are_needed(self) -> None:
        aggregate = self.cloud.make_aggregate(nodes.HOST)
        for text in (f'Caching image {self.image} by request',
                     f'Image {self.image} is cached already'):  # fmt: skip
            since = len(self.log())
            self.cloud.precache(aggregate, self.image)
            self.wait_for_log(text, since)
            system.wait_for(self.base.exists, 120, 'it is in the cache')
        self.assertEqual(self.content, self.base.read_bytes())
        self.assertEqual(nodes.USER, system.owner(self.base))

    def test_09_a_bad_base_that_nobody_uses_is_fetched_anew(self) -> None:
        self.restart(manager_interval=-1)
        self.assertEqual(0, self.ours('verify')[0])
        stories.flip_bit(self.base)
        self.assertEqual(3, self.ours('verify')[0])
        os.unlink(self.own / 'state')
        _age(self.base)
        type(self).guest = self.boot('third')
        self.wait_for_status(self.guest, 'ACTIVE')
        self.wait_for_log('in the trash, and made anew')
        self.assertEqual(self.content, self.base.read_bytes())
        self.assertEqual({self.base.name: {self.guest}}, self.users())

    def test_10_the_scrub_ends_with_nova_compute(self) -> None:
        self.restart(checksum_interval=0, bandwidth=1)
        words = ('nova_imagecache', 'scrub', '--parent')
        scrub = system.wait_for(
            lambda: system.processes(*words), 120, 'a scrub is at work'
        )
        self.assertEqual(
            [nodes.USER], [system.user_of(each) for each in scrub]
        )
        self.stop_compute()
        system.wait_for(
            lambda: not system.processes(*words), 10, 'the scrub has ended'
        )

    def test_11_under_eventlet_it_is_the_same(self) -> None:
        self.restart(concurrency='eventlet')
        large = self.cloud.make_flavor('large', swap=64, ephemeral=1)
        fourth = self.boot('fourth', large)
        self.wait_for_status(fourth, 'ACTIVE')
        self.wait_for_pass()
        users = self.users()
        self.assertEqual({self.guest, fourth}, users.pop(self.base.name))
        self.assertEqual({fourth}, users.pop('swap_64'))
        ((ephemeral, found),) = users.items()
        self.assertEqual('ephemeral_1', ephemeral.rpartition('_')[0])
        self.assertEqual({fourth}, found)
        system.wait_for(self.sidecar.exists, 120, 'a checksum is there')
        self.cloud.delete(fourth)
        self.wait_for_pass()
        self.assertEqual(
            {
                self.base.name: {self.guest},
                'swap_64': set(),
                ephemeral: set(),
            },
            self.users(),
        )
        self.stop_compute()

    def test_12_a_timer_does_it_without_nova_compute(self) -> None:
        self.restart(external_tasks=False)
        since = len(self.log())
        hosts = nodes.INSTANCES / 'compute_nodes'
        hosts.unlink()
        fifth = self.boot('fifth')
        self.wait_for_status(fifth, 'ACTIVE')
        for user in ('root', nodes.USER):
            self.run_unit('nova-imagecache-pass', user)
            self.run_unit('nova-imagecache-scrub', user)
            self.assertEqual({self.guest, fifth}, self.users()[self.base.name])
            self.assertEqual([nodes.HOST], list(json.loads(hosts.read_text())))
        # As root it leaves nothing that nova-compute cannot open.
        for directory, _names, files in os.walk(self.own):
            for each in files:
                path = pathlib.Path(directory, each)
                self.assertEqual(nodes.USER, system.owner(path), path)
        for uuid in (self.guest, fifth):
            self.cloud.delete(uuid)

        self.grow_old(stop=False)
        self.run_unit('nova-imagecache-pass', nodes.USER)
        self.assertFalse(self.base.exists())
        self.assertNotIn('Image cache', self.log()[since:])
