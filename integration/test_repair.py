# SPDX-License-Identifier: Apache-2.0

"""A bad block of a private image, repaired from Glance under its guest."""

import dataclasses
import os
import shutil
from typing import Any

from integration import cloud as clouds
from integration import node as nodes
from integration import stories
from integration import system
from nova_imagecache.cache import hosts
from nova_imagecache.cache import layouts
from nova_imagecache.heal import accounts
from tests.support import boot_sectors

_SIZE = 32 * stories.MIB
_BLOCK = 4 * stories.MIB
# What Glance says of an image, and what HTTP takes.
_BESIDE = 64 * 1024


class RepairTest(stories.StoryTestCase):
    process: int
    bad: bytes

    expected = ('[C01] Base file ', ' is not repaired: ', '[N23] ')

    def restart(self, **options: object) -> None:
        super().restart(
            **{'action': 'repair', 'checksum_interval': 5, **options}
        )

    @property
    def layout(self) -> layouts.Layout:
        return layouts.Layout.at(str(nodes.INSTANCES), '_base')

    def account(self) -> accounts.Account:
        return accounts.load(self.layout, nodes.HOST)

    def shown(self, content: bytes) -> str:
        """Give what the guest shows of its block."""
        start = stories.BAD
        return content[start : start + boot_sectors.SHOWN].hex()

    def wait_until_it_reads(self, content: bytes) -> None:
        """Wait until the guest itself reads some bytes.

        The last line but one: the last may not be complete.
        """
        expected = self.shown(content)
        system.wait_for(
            lambda: self.cloud.console(self.guest)[-2:-1] == [expected],
            60,
            f'the guest reads {expected}',
        )

    def damage(self) -> dict[str, Any] | None:
        """Give what is known of the damage of the base file."""
        for each in self.ours('status')[1]['damaged']:
            if each['name'] == self.base.name:
                found: dict[str, Any] = each
                return found
        return None

    def ask_again(self) -> None:
        """Have the time come to ask Glance again."""
        account = self.account()
        file = account.files[self.base.name]
        due = accounts.File(
            dataclasses.replace(file.last, wait=0.0),
            {
                name: dataclasses.replace(each, wait=0.0)
                for name, each in file.sources.items()
            },
        )
        files = {**account.files, self.base.name: due}
        accounts.save(
            self.layout,
            nodes.HOST,
            dataclasses.replace(account, files=files),
        )
        path = hosts.record_path(self.layout.repairs, nodes.HOST)
        shutil.chown(path, nodes.USER, nodes.USER)

    # The story.

    def test_01_a_guest_reads_its_disk_of_a_private_image(self) -> None:
        boot = boot_sectors.reading(stories.BAD)
        self.upload(boot + os.urandom(_SIZE - len(boot)))
        cls = type(self)
        cls.flavor = self.cloud.make_flavor('reading')
        self.restart()
        cls.guest = self.boot('reading')
        self.wait_for_status(self.guest, 'ACTIVE')
        (cls.process,) = system.processes('qemu-system-x86_64', self.guest)
        self.wait_until_it_reads(self.content)
        system.wait_for(self.sidecar.exists, 120, 'a checksum is there')

    def test_02_a_flipped_bit_is_read_found_and_tied_to_the_guest(
        self,
    ) -> None:
        self.assertEqual({'service'}, self.cloud.roles('nova'))
        stories.flip_bit(self.base)
        type(self).bad = self.base.read_bytes()
        self.wait_until_it_reads(self.bad)
        damage = system.wait_for(self.damage, 120, 'the damage is found')
        self.assertEqual('corrupt', damage['checksum'])
        self.assertEqual(self.image, damage['image'])
        self.assertEqual([self.guest], damage['users'])
        self.assertEqual(stories.RANGES, damage['ranges'])

    def test_03_the_role_service_alone_gets_nothing_and_that_is_told(
        self,
    ) -> None:
        system.wait_for(lambda: self.account().files, 120, 'a repair is tried')
        sources = self.account().files[self.base.name].sources
        self.assertEqual('not-found', sources['image-service'].state)
        problems = ' '.join(
            str(each) for each in self.ours('status')[1]['problems']
        )
        for text in (f'image {self.image}', '404', 'context_is_admin'):
            self.assertIn(text, problems)
        self.assertEqual(self.bad, self.base.read_bytes())
        self.wait_until_it_reads(self.bad)

    def test_04_with_the_role_to_read_images_it_is_repaired_by_itself(
        self,
    ) -> None:
        self.cloud.grant('nova', clouds.SERVICES, clouds.IMAGE_READER)
        self.assertEqual(
            {'service', clouds.IMAGE_READER}, self.cloud.roles('nova')
        )
        before = self.base.stat()
        self.ask_again()
        system.wait_for(
            lambda: self.damage() is None, 120, 'the file is repaired'
        )
        self.assertEqual(self.content, self.base.read_bytes())
        after = self.base.stat()
        self.assertEqual(
            (before.st_ino, before.st_uid, before.st_mode),
            (after.st_ino, after.st_uid, after.st_mode),
        )
        account = self.account()
        self.assertEqual({'image-service': 1}, account.repaired)
        self.assertEqual({}, account.files)
        fetched = account.fetched['image-service']
        self.assertLessEqual(sum(fetched.values()), _BLOCK + _BESIDE)

    def test_05_the_guest_has_gone_on_and_reads_good_bytes(self) -> None:
        self.wait_until_it_reads(self.content)
        self.assertEqual(
            [self.process],
            system.processes('qemu-system-x86_64', self.guest),
        )
        self.assertLessEqual(
            {*self.cloud.console(self.guest)[1:-1]},
            {self.shown(self.content), self.shown(self.bad)},
        )

    def test_06_an_image_that_is_deleted_is_gone_for_an_administrator(
        self,
    ) -> None:
        """The guest goes on with what is the last copy, as it is."""
        self.cloud.delete_image(self.image)
        self.cloud.grant('nova', clouds.SERVICES, clouds.ADMIN)
        self.assertIn(clouds.ADMIN, self.cloud.roles('nova'))
        stories.flip_bit(self.base)
        system.wait_for(
            lambda: self.image in self.account().gone,
            120,
            'it is noted that the image is gone',
        )
        system.wait_for(lambda: self.account().files, 120, 'a repair is tried')
        sources = self.account().files[self.base.name].sources
        self.assertEqual('gone', sources['image-service'].state)
        shown = self.ours('list')[1]
        (row,) = [each for each in shown if each['name'] == self.base.name]
        self.assertTrue(row['last_copy'])
        self.assertEqual('keep', row['action'])
        self.assertEqual(self.bad, self.base.read_bytes())
        self.assertEqual(
            [self.process],
            system.processes('qemu-system-x86_64', self.guest),
        )
