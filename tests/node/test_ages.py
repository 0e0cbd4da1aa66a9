# SPDX-License-Identifier: Apache-2.0

"""From when on a base file has no user, as passes see it."""

import os
import shutil

from nova_imagecache.cache import sightings
from nova_imagecache import names
from tests.support import base
from tests.support import nodes

# That of the file system, in the place of what other tests have.
_REAL_BIRTH = sightings.birth

_OLD = 365 * base.DAY


class FirstSightTest(nodes.NodeTestCase):
    """A file that keeps its old times when it comes to the cache."""

    def restore(self, name: str) -> str:
        """Copy a file to the cache, as ``cp -p`` does; give its name."""
        source = os.path.join(self.temporary, 'backup')
        with open(source, 'wb') as file:
            file.write(os.fsencode(name))
        used = self.node.clock.wall - _OLD
        os.utime(source, (used, used))
        shutil.copy2(source, self.node.base_path(name))
        return name

    def assert_goes_after_a_day(self, name: str) -> None:
        for hours in (23, 2):
            self.node.run()
            self.assertIn(name, self.node.files())
            self.node.clock.advance(hours * base.HOUR)
        self.node.run()
        self.assertNotIn(name, self.node.files())

    def test_a_cache_that_is_restored_stays_for_a_day(self) -> None:
        name = self.restore(names.get_cache_fname('image'))
        file = self.file_of(self.node.run(), name)
        self.assertEqual('unused for 0 s of 86400 s', file.reason)
        self.assert_goes_after_a_day(name)

    def test_so_does_a_file_that_is_put_into_a_cache(self) -> None:
        self.node.add_image('other')
        self.node.run()
        self.assert_goes_after_a_day(
            self.restore(names.get_cache_fname('image'))
        )

    def test_so_does_what_is_left_of_a_fetch(self) -> None:
        name = self.restore(names.get_cache_fname('image') + '.part')
        self.assert_goes_after_a_day(name)

    def test_another_file_of_the_name_is_seen_first_again(self) -> None:
        name = self.node.add_image('image', age=_OLD)
        self.node.configure(remove_unused=False)
        self.node.run()
        os.rename(self.node.base_path(name), self.temporary + '/away')
        self.restore(name)
        self.node.configure(remove_unused=True)
        self.assert_goes_after_a_day(name)

    def test_a_file_that_is_moved_away_and_back_is_not(self) -> None:
        name = self.node.add_image('image', age=_OLD)
        self.node.configure(remove_unused=False)
        self.node.run()
        path = self.node.base_path(name)
        os.rename(path, self.temporary + '/away')
        os.rename(self.temporary + '/away', path)
        self.node.configure(remove_unused=True)
        self.node.run()
        self.assertEqual({name}, self.node.trash())

    def test_a_first_sight_in_the_future_keeps_no_file_for_ever(self) -> None:
        name = self.restore(names.get_cache_fname('image'))
        self.node.run()
        self.node.clock.wall -= _OLD / 2
        self.node.clock.boottime = 60.0
        self.node.clock.boot_id = 'second-boot'
        self.assert_goes_after_a_day(name)

    def test_a_bad_one_is_set_aside_though_it_is_young(self) -> None:
        self.patch(sightings, 'birth', _REAL_BIRTH)
        name = self.node.add_image('image')
        self.node.configure(checksum=True, remove_unused=False)
        self.node.run()
        nodes.flip_bit(self.node.base_path(name))
        self.node.run()
        reason = self.node.make_pass().set_aside(name)
        self.assertIn('of 600 s', str(reason))
        self.assertIsNone(self.node.make_pass().set_aside(name, young=False))
        self.assertEqual({name}, self.node.trash())


class BirthTest(nodes.NodeTestCase):
    """When the file system says that a file was made."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(sightings, 'birth', _REAL_BIRTH)
        # As if it had been seen before it was made.
        self.name = self.node.add_image('image', age=_OLD)
        self.node.clock.advance(60)

    def test_it_counts_too(self) -> None:
        self.node.run()
        self.assertIn(self.name, self.node.files())
        self.node.clock.advance(25 * base.HOUR)
        self.node.run()
        self.assertNotIn(self.name, self.node.files())

    def test_one_in_the_future_keeps_no_file_for_ever(self) -> None:
        self.node.clock.wall -= _OLD / 2
        self.node.run()
        self.assertNotIn(self.name, self.node.files())
