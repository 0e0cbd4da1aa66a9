# SPDX-License-Identifier: Apache-2.0

"""A person has evidence: the command confirm, as it is typed."""

import hashlib
import os

import ddt

from nova_imagecache import hook
from nova_imagecache.scrub import one_file
from tests.support import base
from tests.support import confirming
from tests.support import nodes
from tests.support import scrubbing

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


@ddt.ddt
class RightTest(confirming.ConfirmTestCase):
    @ddt.data(*confirming.DOUBTS)
    def test_the_right_sha1_ends_each_doubt(self, doubt: str) -> None:
        getattr(self, doubt)()
        self.assertTrue(self.is_in_doubt(), doubt)
        code, stdout, stderr = self.confirm('--sha1', self.sha1())
        self.assertEqual(0, code, stderr)
        self.assertIn('good', stdout)
        self.assert_beyond_doubt()

    def is_in_doubt(self) -> bool:
        code, row = self.found()
        return (
            code != 0
            or 'suspect' in row['reason']
            or ('rebaselined' in row['reason'])
        )

    @ddt.data(*confirming.DOUBTS)
    def test_a_file_with_the_same_bytes_is_as_good(self, doubt: str) -> None:
        getattr(self, doubt)()
        with open(self.path, 'rb') as file:
            data = file.read()
        with open(self.evidence, 'wb') as file:
            file.write(data)
        code, _stdout, stderr = self.confirm('--file', self.evidence)
        self.assertEqual(0, code, stderr)
        self.assert_beyond_doubt()

    @ddt.data(*confirming.DOUBTS)
    def test_the_state_forgets_it_too(self, doubt: str) -> None:
        getattr(self, doubt)()
        self.confirm('--sha1', self.sha1())
        sighting = self.remembered()
        self.assertEqual(
            (True, False, None, None),
            (
                sighting.digested,
                sighting.suspect,
                sighting.rebaselined,
                sighting.damage,
            ),
        )
        # So it does not come back from there when the ledger is lost.
        os.unlink(self.node.layout.ledger(self.name))
        self.read_twice()
        self.assert_beyond_doubt()

    @ddt.data(*confirming.DOUBTS)
    def test_what_decays_then_is_found_by_the_new_digests(
        self, doubt: str
    ) -> None:
        getattr(self, doubt)()
        self.confirm('--sha1', self.sha1())
        self.flip(1)
        self.assertEqual(3, self.run_command('verify')[0])
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))

    def test_one_that_was_never_read_is_good_from_then_on(self) -> None:
        code, _stdout, stderr = self.confirm('--sha1', self.sha1())
        self.assertEqual(0, code, stderr)
        self.assert_beyond_doubt()

    def test_capitals_and_white_space_make_no_difference(self) -> None:
        self.suspect()
        code, _stdout, stderr = self.confirm(
            '--sha1', f' {self.sha1().upper()}\n'
        )
        self.assertEqual(0, code, stderr)
        self.assert_beyond_doubt()

    def test_a_path_will_do_for_the_name(self) -> None:
        self.suspect()
        code, _stdout, stderr = self.run_command(
            'confirm', self.path, '--sha1', self.sha1()
        )
        self.assertEqual(0, code, stderr)
        self.assert_beyond_doubt()

    def test_the_image_is_not_forgotten(self) -> None:
        self.suspect()
        file = self.file(self.name)
        job = one_file.Job(file, self.known(self.name), image='an image')
        one_file.scrub(
            job,
            one_file.Method('xxh3_128', self.means, self.node.clock),
        )
        self.confirm('--sha1', self.sha1())
        self.assertEqual('an image', self.ledger(self.name).image)


@ddt.ddt
class WrongTest(confirming.ConfirmTestCase):
    @ddt.data('read_twice', *confirming.DOUBTS)
    def test_a_wrong_sha1_changes_nothing(self, doubt: str) -> None:
        getattr(self, doubt)()
        before = self.all_records()
        code, _stdout, stderr = self.confirm('--sha1', 'e' * 40)
        self.assertEqual(3, code)
        self.assertIn(f'its SHA-1 is {self.sha1()} and not {"e" * 40}', stderr)
        self.assertIn('nothing was changed', stderr)
        self.assertEqual(before, self.all_records())

    def test_nor_does_a_file_with_other_bytes(self) -> None:
        self.suspect()
        before = self.all_records()
        with open(self.evidence, 'wb') as file:
            file.write(self.data[:-1])
        code, _stdout, stderr = self.confirm('--file', self.evidence)
        self.assertEqual(3, code)
        self.assertIn('nothing was changed', stderr)
        self.assertEqual(before, self.all_records())

    def test_one_that_was_never_read_gets_no_checksum(self) -> None:
        code, _stdout, _stderr = self.confirm('--sha1', 'e' * 40)
        self.assertEqual(3, code)
        self.assertFalse(os.path.exists(self.sidecar))
        self.assertIsNone(self.known(self.name).ledger)

    def test_what_was_known_of_it_condemns_one_that_decays(self) -> None:
        self.read_twice()
        known = self.sha1()
        self.flip(2)
        code, _stdout, stderr = self.confirm('--sha1', known)
        self.assertEqual(3, code)
        self.assertIn(f'{self.name} (image unknown) is corrupt', stderr)
        self.assertEqual((3, 'corrupt'), self.short_found())
        self.assertEqual(known, self.read_sidecar())
        # Which bytes are bad takes a verification.
        self.run_command('verify')
        self.assertEqual({2: scrubbing.CORRUPT}, self.bad(self.name))
        self.flip(2)
        self.assertEqual(0, self.run_command('verify')[0])

    def test_a_reading_that_was_interrupted_before_does_not_acquit_it(
        self,
    ) -> None:
        self.read_twice()
        known = self.sha1()
        self.node.clock.advance(base.DAY)
        self.scrub(self.name, checkpoint_seconds=0, **self.stop_after(2))
        self.assertLess(0, self.ledger(self.name).position)
        self.flip(0)
        self.confirm('--sha1', known)
        self.go_on()
        self.scrub(self.name)
        self.assertEqual({0: scrubbing.CORRUPT}, self.bad(self.name))

    def test_the_guests_of_an_earlier_file_are_named_once_more(self) -> None:
        self.node.add_overlay('a-guest', self.name)
        self.differs()
        code, _stdout, stderr = self.confirm('--sha1', self.sha1())
        self.assertEqual(0, code)
        self.assertIn('not named from now on: a-guest', stderr)

    def test_that_of_the_earlier_file_condemns_one_that_differs(
        self,
    ) -> None:
        self.node.add_overlay(GUEST, self.name)
        self.differs()
        conf = base.make_conf(instances_path=self.node.layout.instances)
        manager = hook.ImageCacheManager(conf)
        earlier = hashlib.sha1(self.data).hexdigest()
        digests = self.all_records()[1].partition(b'\n')[2]
        self.assertRaises(hook.Error, manager.damage_of, self.name)
        code, stdout, _stderr = self.confirm('--sha1', earlier)
        self.assertEqual(3, code)
        self.assertIn('CORRUPT', stdout)
        self.assertEqual((3, 'corrupt'), self.short_found())
        self.assertEqual({2: scrubbing.CORRUPT}, self.bad(self.name))
        self.assertEqual(earlier, self.read_sidecar())
        self.assertEqual(digests, self.all_records()[1].partition(b'\n')[2])
        # The gate is shut, and the state knows it.
        self.assertEqual('corrupt', manager.damage_of(self.name))
        damage = self.remembered().damage
        assert damage is not None
        self.assertEqual('corrupt', damage.verdict)
        # And it stays so when it is read again.
        self.assertEqual(3, self.run_command('verify')[0])
        self.assertEqual((3, 'corrupt'), self.short_found())

    def test_so_does_one_of_which_nothing_but_a_checksum_was_left(
        self,
    ) -> None:
        earlier = hashlib.sha1(self.data[:-1] + b'x').hexdigest()
        self.write_sidecar(earlier)
        nodes.write_after(self.path, self.data, self.sidecar)
        self.read_twice()
        self.assertEqual((3, 'differs'), self.short_found())
        self.assertEqual(3, self.confirm('--sha1', earlier)[0])
        for _pass in range(2):
            self.assertEqual((3, 'corrupt'), self.short_found())
            self.node.run()
        self.assertEqual(earlier, self.read_sidecar())

    def short_found(self) -> tuple[int, str]:
        code, row = self.found()
        return code, row['checksum']
