# SPDX-License-Identifier: Apache-2.0

"""What becomes of removed base files: kept for a while, brought back, gone."""

import errno
import fcntl
import os
import struct
from typing import Any
from unittest import mock

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.cache import directories
from nova_imagecache.cache import identity
from nova_imagecache.cache import qemu_locks
from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache.cache import trash
from nova_imagecache.content import knowledge
from nova_imagecache import errors
from nova_imagecache import hook
from nova_imagecache.passes import act
from nova_imagecache.passes import decide
from nova_imagecache.passes import reports
from nova_imagecache.witnesses import testimonies
from tests.support import base
from tests.support import fake_witnesses
from tests.support import nodes
from tests.support import processes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
Verdict = knowledge.Verdict

# As QEMU locks single bytes: type, whence, start, length and process.
_FLOCK = struct.Struct('@hhqqi')


class TrashTestCase(nodes.NodeTestCase):
    """A base file that a pass has just moved to the trash."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image', age=25 * base.HOUR)
        self.node.configure(checksum=True, remove_unused=False)
        self.node.run()
        self.path = self.node.base_path(self.name)
        self.data = self.read(self.path)
        self.sha1 = self.read(f'{self.path}.sha1')
        self.node.configure(remove_unused=True, checksum_interval=base.DAY)
        self.report = self.node.run()

    def read(self, path: str) -> bytes:
        with open(path, 'rb') as file:
            return file.read()

    def in_trash(self) -> str:
        (found,) = trash.scan(self.node.layout).files
        return os.path.join(self.node.layout.trash, found.name)

    def row(self, report: reports.Report) -> reports.FileReport:
        (row,) = report.trash
        return row

    def assert_back(self) -> None:
        self.assertEqual(set(), self.node.trash())
        self.assertEqual(self.data, self.read(self.path))
        self.assertEqual(self.sha1, self.read(f'{self.path}.sha1'))
        self.assertIn(self.name, os.listdir(self.node.layout.ledgers))
        self.assertEqual([], os.listdir(self.node.layout.trash))


@ddt.ddt
class RetentionTest(TrashTestCase):
    def test_a_removed_base_file_is_in_the_trash_with_what_is_known(
        self,
    ) -> None:
        self.assertEqual(
            [self.name], [file.name for file in self.report.removed]
        )
        self.assertEqual(set(), self.node.files())
        self.assertEqual([], os.listdir(self.node.layout.ledgers))
        self.assertEqual(self.data, self.read(self.in_trash()))
        self.assertEqual(self.sha1, self.read(self.in_trash() + '.sha1'))
        self.assertTrue(os.path.exists(self.in_trash() + '.ledger'))

    def test_it_is_deleted_an_hour_later(self) -> None:
        self.node.clock.advance(3599)
        row = self.row(self.node.run())
        self.assertEqual(decide.Action.KEEP, row.action)
        self.assertIn('3599 s of 3600 s', row.reason)
        self.node.clock.advance(2)
        report = self.node.run()
        self.assertEqual(decide.Action.DELETE, self.row(report).action)
        self.assertEqual(1, len(report.deleted))
        self.assertEqual([], os.listdir(self.node.layout.trash))

    def test_it_stays_for_ten_minutes_whatever_the_option_says(self) -> None:
        self.node.configure(retention=0)
        self.node.clock.advance(599)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        self.node.clock.advance(2)
        self.node.run()
        self.assertEqual(set(), self.node.trash())

    def test_it_stays_while_a_witness_is_blind(self) -> None:
        self.node.clock.advance(base.DAY)
        row = self.row(
            self.node.run(
                fake_witnesses.Sees(vetoes=(fake_witnesses.blind(),))
            )
        )
        self.assertEqual(decide.Action.KEEP, row.action)
        self.assertIn('blind', row.reason)
        self.assertEqual({self.name}, self.node.trash())

    def test_it_stays_when_a_witness_goes_blind_at_the_last_moment(
        self,
    ) -> None:
        self.node.clock.advance(base.DAY)
        failed = testimonies.Testimony(vetoes=(fake_witnesses.blind(),))
        row = self.row(self.node.run(fake_witnesses.SaysLater(failed)))
        self.assertIn('blind', row.reason)
        self.assertEqual({self.name}, self.node.trash())

    def test_it_stays_when_a_user_comes_at_the_last_moment(self) -> None:
        self.node.clock.advance(base.DAY)
        user = testimonies.Testimony(users={self.name: frozenset({GUEST})})
        row = self.row(self.node.run(fake_witnesses.SaysLater(user)))
        self.assertIn(GUEST, row.reason)
        self.assertEqual({self.name}, self.node.trash())

    def test_it_stays_when_the_clock_has_jumped(self) -> None:
        self.node.clock.jump(365 * base.DAY)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())

    def test_a_clock_that_is_set_ages_nothing_in_the_trash(self) -> None:
        self.node.clock.jump(365 * base.DAY)
        self.node.run()
        self.node.clock.advance(60)
        self.assertIn('60 s of', self.row(self.node.run()).reason)

    def test_it_stays_when_removal_is_off(self) -> None:
        self.node.configure(remove_unused=False)
        self.node.clock.advance(base.DAY)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())

    def test_it_stays_while_its_lock_is_held(self) -> None:
        self.node.clock.advance(base.DAY)
        self.useFixture(
            processes.NovaProcess(self.node.layout.locks, self.name)
        )
        self.assertIn('lock', self.row(self.node.run()).reason)
        self.assertEqual({self.name}, self.node.trash())

    def test_without_a_state_its_name_tells_since_when_it_is_there(
        self,
    ) -> None:
        os.unlink(self.node.layout.state)
        self.node.clock.advance(3599)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        os.unlink(self.node.layout.state)
        self.node.clock.advance(2)
        self.node.run()
        self.assertEqual(set(), self.node.trash())

    @ddt.data(False, True)
    def test_of_two_in_the_same_second_the_second_waits_a_pass(
        self, as_nfs: bool
    ) -> None:
        def refuse(*args: Any) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        if as_nfs:
            # Mocked: it takes a server.
            self.patch(directories, '_renameat2', refuse)
        self.node.add_base(self.name, data=b'new', age=2 * base.DAY)
        report = self.node.run()
        self.assertIn('just now', report.problems[0])
        self.assertEqual({self.name}, self.node.files())
        self.assertEqual(self.data, self.read(self.in_trash()))
        self.assertEqual(self.sha1, self.read(self.in_trash() + '.sha1'))
        self.assertTrue(os.path.exists(self.in_trash() + '.ledger'))

    def test_a_dry_run_deletes_nothing_and_says_what_it_would(self) -> None:
        self.node.clock.advance(base.DAY)
        report = self.node.make_pass().preview()
        self.assertEqual(1, len(report.deleted))
        self.assertEqual({self.name}, self.node.trash())

    def test_files_of_one_lock_go_together(self) -> None:
        leftovers = [f'{self.name}.part', f'{self.name}.converted']
        for name in leftovers:
            self.node.add_base(name, age=25 * base.HOUR)
        looks: list[set[str]] = []

        class Notes(fake_witnesses.Looks):
            def look_again(self, base_files: Any) -> testimonies.Testimony:
                looks.append(set(base_files))
                return testimonies.Testimony()

        self.assertEqual(2, len(self.node.run(Notes()).removed))
        self.assertEqual([set(leftovers)], looks)

    def test_other_files_in_the_trash_are_left_alone(self) -> None:
        path = os.path.join(self.node.layout.trash, 'README')
        with open(path, 'w'):
            pass
        self.node.clock.advance(365 * base.DAY)
        self.node.run()
        self.assertEqual(['README'], os.listdir(self.node.layout.trash))

    def test_what_is_known_of_a_file_that_has_gone_goes_too(self) -> None:
        os.unlink(self.in_trash())
        self.node.add_image('other')
        self.node.run()
        self.assertEqual([], os.listdir(self.node.layout.trash))

    def test_what_was_seen_in_it_is_not_looked_at_again(self) -> None:
        layout = self.node.layout
        first = trash.scan(layout)
        looked: list[str] = []
        real = identity.stat_of

        def spy(path: str, *args: Any, **kwargs: Any) -> identity.Stat:
            looked.append(path)
            return real(path, *args, **kwargs)

        self.patch(identity, 'stat_of', spy)
        self.assertEqual(first, trash.scan(layout, first.files))
        self.assertEqual([], looked)
        os.unlink(first.files[0].path)
        self.assertEqual((), trash.scan(layout, first.files).files)

    def test_what_was_just_moved_there_is_known_without_a_look(self) -> None:
        name = self.node.add_image('other', age=25 * base.HOUR)
        self.node.configure(remove_unused=False)
        self.node.run()
        self.node.configure(remove_unused=True)
        looked: list[str] = []
        real = identity.stat_of

        def spy(path: str, *args: Any, **kwargs: Any) -> identity.Stat:
            looked.append(path)
            return real(path, *args, **kwargs)

        with mock.patch.object(identity, 'stat_of', spy):
            self.node.run()
        (file,) = [
            file
            for file in trash.scan(self.node.layout).files
            if file.original == name
        ]
        self.assertNotIn(file.path, looked)
        state = states.load(self.node.layout)
        self.assertIs(state.files[file.name], state.sighting(file))
        self.assertIsNotNone(state.files[file.name].trashed)

    def test_the_trash_counts_in_the_disk_usage(self) -> None:
        manager = hook.ImageCacheManager(
            base.make_conf(instances_path=self.node.layout.instances)
        )
        self.assertGreaterEqual(manager.get_disk_usage(), len(self.data))


@ddt.ddt
class PutBackTest(TrashTestCase):
    def test_one_witness_is_enough_to_put_it_back(self) -> None:
        report = self.node.run(fake_witnesses.Sees(self.name))
        self.assertEqual(decide.Action.PUT_BACK, self.row(report).action)
        self.assertEqual((GUEST,), self.row(report).users)
        self.assert_back()

    def test_it_is_put_back_though_others_are_blind(self) -> None:
        self.node.run(
            fake_witnesses.Sees(self.name),
            fake_witnesses.Sees(vetoes=(fake_witnesses.blind(),)),
        )
        self.assert_back()

    def test_it_is_put_back_though_the_clock_has_jumped(self) -> None:
        self.node.clock.jump(365 * base.DAY)
        self.node.run(fake_witnesses.Sees(self.name))
        self.assert_back()

    def spoil(self) -> None:
        """Have the file in the trash be one that is known to be bad."""
        self.node.run(fake_witnesses.Sees(self.name))
        nodes.flip_bit(self.path)
        self.node.clock.advance(2 * base.DAY)
        report = self.node.run(fake_witnesses.Sees(self.name))
        self.assertEqual(1, len(report.corrupt))
        self.node.clock.advance(25 * base.HOUR)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())

    def test_a_bad_file_waits_for_the_guest_that_has_it_fetched_anew(
        self,
    ) -> None:
        self.spoil()
        users = {self.name: frozenset({GUEST})}
        listed = fake_witnesses.Looks(users=users, by_list=True)
        report = self.node.run(listed)
        self.assertEqual(decide.Action.KEEP, self.row(report).action)
        self.assertIn('it is corrupt', self.row(report).reason)
        self.assertNotIn(self.name, self.node.files())
        self.node.clock.advance(decide.FLOOR_SECONDS)
        self.node.run(listed)
        self.assertIn(self.name, self.node.files())

    def test_a_bad_file_that_is_seen_in_use_comes_back_at_once(self) -> None:
        self.spoil()
        self.node.run(
            fake_witnesses.Looks(users={self.name: frozenset({GUEST})})
        )
        self.assertIn(self.name, self.node.files())

    def test_a_bad_file_that_a_lock_is_on_comes_back_at_once(self) -> None:
        self.spoil()
        (file,) = trash.scan(self.node.layout).files
        self.node.run(fake_witnesses.Looks(held=frozenset({file.name})))
        self.assertIn(self.name, self.node.files())

    def test_an_earlier_bad_file_does_not_come_in_its_place(self) -> None:
        self.spoil()
        self.node.clock.advance(2 * decide.FLOOR_SECONDS)
        self.node.configure(retention=30 * base.DAY)
        self.node.add_base(self.name, age=25 * base.HOUR)
        self.spoil()
        self.assertEqual(2, len(trash.scan(self.node.layout).files))
        users = {self.name: frozenset({GUEST})}
        self.node.run(fake_witnesses.Looks(users=users, by_list=True))
        self.assertNotIn(self.name, self.node.files())

    def test_an_overlay_that_comes_to_light_brings_it_back(self) -> None:
        elsewhere = os.path.join(self.temporary, self.name)
        with open(elsewhere, 'wb') as file:
            file.write(self.data)
        self.node.add_overlay(GUEST, elsewhere)
        self.node.run()
        self.assert_back()
        report = self.node.run()
        self.assertEqual(
            'used by 1 guest', self.file_of(report, self.name).reason
        )

    def test_it_is_as_verified_as_before(self) -> None:
        self.node.run(fake_witnesses.Sees(self.name))
        file = self.file_of(
            self.node.run(fake_witnesses.Sees(self.name)), self.name
        )
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        self.assertNotIn('rebaselined', file.reason)
        self.node.configure(checksum_interval=0)
        file = self.file_of(
            self.node.run(fake_witnesses.Sees(self.name)), self.name
        )
        self.assertIs(Verdict.GOOD, file.checksum)

    def test_it_counts_as_used_then(self) -> None:
        self.node.run(fake_witnesses.Sees(self.name))
        self.node.clock.advance(23 * base.HOUR)
        self.node.run()
        self.assertIn(self.name, self.node.files())

    def test_never_over_a_file_that_was_fetched_anew(self) -> None:
        self.node.add_base(self.name, data=b'new')
        self.node.run(fake_witnesses.Sees(self.name))
        self.assertEqual(b'new', self.read(self.path))
        self.assertEqual({self.name}, self.node.trash())
        # The new one serves whoever needs this name.
        self.node.clock.advance(base.DAY)
        self.node.run(fake_witnesses.Sees(self.name))
        self.assertEqual(set(), self.node.trash())
        self.assertEqual(b'new', self.read(self.path))

    def test_never_over_a_file_that_is_fetched_meanwhile(self) -> None:
        real = removal.put_back

        def put_back(*args: Any) -> Any:
            self.node.add_base(self.name, data=b'new')
            return real(*args)

        self.patch(removal, 'put_back', put_back)
        report = self.node.run(fake_witnesses.Sees(self.name))
        self.assertIn('another file', self.row(report).reason)
        self.assertEqual(b'new', self.read(self.path))
        self.assertEqual(self.data, self.read(self.in_trash()))

    def test_what_is_known_of_a_file_fetched_anew_stays_what_it_was(
        self,
    ) -> None:
        """That a put-back fails is no reason to lose what speaks of both."""
        self.node.add_base(self.name, data=b'new')
        self.node.configure(checksum_interval=0)
        self.node.run(fake_witnesses.Sees(self.name))
        (old,) = trash.scan(self.node.layout).files
        new = base_file.BaseFile.named(self.node.layout, self.name)
        before = [
            self.read(path) for path in (*new.companions, *old.companions)
        ]
        self.assertRaises(FileExistsError, removal.put_back, old)
        after = [
            self.read(path) for path in (*new.companions, *old.companions)
        ]
        self.assertEqual(before, after)

    def test_both_are_kept_and_reported_while_a_qemu_has_the_old_one(
        self,
    ) -> None:
        self.node.add_base(self.name, data=b'new', age=2 * base.DAY)
        fd = os.open(self.in_trash(), os.O_RDONLY)
        # As QEMU does; a real one is in test_image_locks.
        qemu_locks._share(fd, 100)
        self.node.clock.advance(2 * base.HOUR)
        report = self.node.run()
        row = self.row(report)
        self.assertEqual(decide.Action.KEEP, row.action)
        self.assertIn('another file has its name', row.reason)
        self.assertIn(self.name, report.notes[0])
        self.assertIn(
            'an earlier file', self.file_of(report, self.name).reason
        )
        self.assertIn(self.name, self.node.files())
        self.assertEqual(self.data, self.read(self.in_trash()))
        os.close(fd)
        self.node.run()
        self.assertEqual(set(), self.node.trash())

    def test_a_qemu_that_has_it_open_brings_it_back(self) -> None:
        fd = os.open(self.in_trash(), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        qemu_locks._share(fd, 100)
        self.node.run()
        self.assert_back()

    def test_a_pin_brings_it_back(self) -> None:
        self.node.pin(self.name)
        self.node.run()
        self.assert_back()

    def test_it_waits_for_nobody_who_holds_the_lock(self) -> None:
        nova = processes.NovaProcess(self.node.layout.locks, self.name)
        with nova:
            report = self.node.run(fake_witnesses.Sees(self.name))
            self.assertIn('lock', self.row(report).reason)
            self.assertEqual({self.name}, self.node.trash())
        self.node.run(fake_witnesses.Sees(self.name))
        self.assert_back()

    def test_what_is_known_of_it_survives_a_way_back_that_nobody_noted(
        self,
    ) -> None:
        state = states.load(self.node.layout)
        (file,) = trash.scan(self.node.layout).files
        known = state.sighting(file)
        self.assertIsNotNone(known)
        back = trash.move_out(file)
        self.assertEqual(known, state.sighting(back))
        again = f'{self.name}.{int(self.node.clock.wall) + 1:08x}'
        os.rename(back.path, os.path.join(self.node.layout.trash, again))
        (file,) = trash.scan(self.node.layout).files
        self.assertEqual((again, known), (file.name, state.sighting(file)))

    def test_what_is_back_before_the_pass_ends_is_no_new_file(self) -> None:
        self.node.run(fake_witnesses.Sees(self.name))
        known = states.load(self.node.layout).files[self.name]
        real = act.Actor.act

        def acted(actor: act.Actor, decisions: decide.Decisions) -> act.Done:
            done = real(actor, decisions)
            (file,) = trash.scan(self.node.layout).files
            removal.put_back(file)
            return done

        self.patch(act.Actor, 'act', acted)
        self.node.clock.advance(2 * base.DAY)
        self.assertEqual([self.name], [*self.removed(self.node.run())])
        self.assertEqual(known, states.load(self.node.layout).files[self.name])

    def removed(self, report: reports.Report) -> set[str]:
        return {file.name for file in report.removed}

    def test_of_two_the_newest_comes_back(self) -> None:
        self.node.add_base(self.name, data=b'newer', age=base.DAY * 2)
        self.node.clock.advance(60)
        self.node.run()
        self.assertEqual(2, len(os.listdir(self.node.layout.trash)) - 2)
        self.node.clock.advance(60)
        self.node.run(fake_witnesses.Sees(self.name))
        self.assertEqual(b'newer', self.read(self.path))
        self.assertEqual(self.data, self.read(self.in_trash()))

    @ddt.data(errno.EINVAL, errno.ENOSYS)
    def test_where_the_kernel_cannot_refuse_to_replace_links_do(
        self, code: int
    ) -> None:
        # Mocked: NFS answers so, and takes a server.
        def refuse(*args: Any) -> None:
            raise OSError(code, os.strerror(code))

        self.patch(directories, '_renameat2', refuse)
        self.node.run(fake_witnesses.Sees(self.name))
        self.assert_back()
        self.assertEqual(1, os.stat(self.path).st_nlink)

    def test_without_links_either_a_file_that_is_there_is_not_replaced(
        self,
    ) -> None:
        # Mocked: NFS with another user's file takes a server.
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        self.patch(directories, '_renameat2', refuse)
        self.patch(os, 'link', refuse)
        self.node.add_base(self.name, data=b'new')
        (file,) = trash.scan(self.node.layout).files
        self.assertRaises(FileExistsError, removal.put_back, file)
        os.unlink(self.path)
        removal.put_back(file)
        self.assertEqual(self.data, self.read(self.path))
        self.assertEqual(self.sha1, self.read(f'{self.path}.sha1'))


class DeletionTest(TrashTestCase):
    """The fence is there as well when a file goes for good."""

    def setUp(self) -> None:
        super().setUp()
        self.node.clock.advance(2 * base.HOUR)

    def test_no_qemu_opens_a_file_while_it_is_deleted(self) -> None:
        trashed = self.in_trash()
        real = os.unlink
        free: list[bool] = []

        def unlink(path: Any, *args: Any, **kwargs: Any) -> None:
            if path == os.path.basename(trashed):
                # As QEMU asks before it opens an image.
                free.append(self.may_be_opened(trashed))
            real(path, *args, **kwargs)

        self.patch(os, 'unlink', unlink)
        self.node.run()
        self.assertEqual([False], free)
        self.assertEqual(set(), self.node.trash())

    def may_be_opened(self, path: str) -> bool:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 200, 1, 0)
        with open(path, 'rb') as file:
            answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, question)
        return bool(_FLOCK.unpack(answer)[0] == fcntl.F_UNLCK)

    def test_one_that_a_qemu_opens_at_the_last_moment_stays(self) -> None:
        file = self.enterContext(open(self.in_trash(), 'rb'))
        real = trash.delete

        def delete(*args: Any) -> None:
            wish = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, wish)
            real(*args)

        self.patch(trash, 'delete', delete)
        self.assertIn('running QEMU', self.row(self.node.run()).reason)
        self.assertEqual({self.name}, self.node.trash())


class JumpTest(TrashTestCase):
    def test_a_jump_begins_the_time_in_the_trash_anew(self) -> None:
        self.node.clock.jump(30 * base.DAY)
        self.node.run()
        self.node.clock.advance(60)
        # Within this boot nobody can set the clock that counts.
        self.node.clock.boot_id = 'second-boot'
        self.node.clock.boottime = 30.0
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())


@ddt.ddt
class FetchTest(TrashTestCase):
    """The fetch path looks into the trash first."""

    def setUp(self) -> None:
        super().setUp()
        self.conf = base.make_conf(instances_path=self.node.layout.instances)
        self.fetched = 0

    def fetch(self, path: str) -> None:
        self.fetched += 1
        with open(path, 'wb') as file:
            file.write(b'\0' * 65536)

    def cache_image(self) -> None:
        hook.cache_image(self.fetch, self.name, conf=self.conf)

    def test_it_comes_back_and_nothing_is_fetched(self) -> None:
        self.cache_image()
        self.assertEqual(0, self.fetched)
        self.assert_back()
        self.assertLess(
            self.node.clock.wall - os.stat(self.path).st_mtime, base.HOUR
        )

    def test_one_that_is_known_to_be_bad_is_fetched_anew(self) -> None:
        removal.put_back(trash.scan(self.node.layout).files[0])
        nodes.flip_bit(self.path)
        self.node.make_pass(fake_witnesses.Sees(self.name)).verify_now(
            [self.name]
        )
        # Whether or not anybody looks at checksums by now.
        self.node.configure(checksum=False)
        self.node.clock.advance(2 * base.DAY)
        self.node.run()
        self.assertEqual({self.name}, self.node.trash())
        self.cache_image()
        self.assertEqual(1, self.fetched)
        self.assertEqual({self.name}, self.node.trash())

    def add_newer(self) -> None:
        """Have another one in the trash, moved there later."""
        self.node.add_base(self.name, data=b'newer', age=base.DAY * 2)
        self.node.clock.advance(60)
        self.node.run()
        self.assertEqual(2, len(trash.scan(self.node.layout).files))

    def test_of_two_the_newer_one_comes_back(self) -> None:
        self.add_newer()
        self.cache_image()
        self.assertEqual(0, self.fetched)
        self.assertEqual(b'newer', self.read(self.path))
        self.assertEqual(self.data, self.read(self.in_trash()))

    @ddt.data(OSError(errno.EIO, os.strerror(errno.EIO)), errors.NotNow('x'))
    def test_one_that_cannot_be_brought_back_is_fetched(
        self, error: Exception
    ) -> None:
        """And the one before it does not come in its place."""
        self.add_newer()
        real = trash.move_out
        tried: list[base_file.BaseFile] = []

        # Mocked: a disk that fails, or a file that goes at that moment.
        def move_out(file: base_file.BaseFile) -> Any:
            tried.append(file)
            if len(tried) == 1:
                raise error
            return real(file)

        self.patch(trash, 'move_out', move_out)
        self.cache_image()
        self.assertEqual(1, self.fetched)
        self.assertEqual(bytes(65536), self.read(self.path))
        self.assertEqual(2, len(trash.scan(self.node.layout).files))
        self.assertIn('cannot be brought back', self.log.output)

    def test_without_a_state_it_comes_back_too(self) -> None:
        with open(self.node.layout.state, 'w') as file:
            file.write('garbage')
        self.cache_image()
        self.assertEqual(0, self.fetched)

    def test_one_whose_ledger_is_damaged_is_fetched_anew(self) -> None:
        with open(self.in_trash() + '.ledger', 'w') as file:
            file.write('garbage')
        self.cache_image()
        self.assertEqual(1, self.fetched)

    def test_a_resized_file_comes_back_as_well(self) -> None:
        resized = f'{self.name}_{2 * base.MIB}'
        self.node.add_base(resized, data=b'resized', age=2 * base.HOUR)
        self.node.run()
        self.assertEqual({self.name, resized}, self.node.trash())
        hook.cache_image(
            self.fetch, self.name, conf=self.conf, resize_to=2 * base.MIB
        )
        self.assertEqual(0, self.fetched)
        self.assertEqual(b'resized', self.read(self.node.base_path(resized)))
