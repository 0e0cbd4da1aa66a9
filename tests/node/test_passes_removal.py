# SPDX-License-Identifier: Apache-2.0

"""What passes remove, on real files, and what they leave."""

from collections.abc import Collection
import errno
import os
import subprocess
from typing import Any

import ddt

from nova_imagecache.cache import removal
from nova_imagecache.cache import states
from nova_imagecache.content import knowledge
from nova_imagecache import host
from nova_imagecache import names
from nova_imagecache.passes import decide
from nova_imagecache.passes import pipeline
from nova_imagecache.witnesses import panel
from nova_imagecache.witnesses import testimonies
from tests.support import base
from tests.support import fake_witnesses
from tests.support import nodes
from tests.support import processes


class BrokenWitnessTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image', age=365 * base.DAY)

    def test_a_witness_that_raises_has_failed_and_the_pass_goes_on(
        self,
    ) -> None:
        report = self.node.run(fake_witnesses.Raises('look'))
        self.assertIn('Raises: it has failed', report.vetoes[0])
        self.assertNotIn('\n', report.vetoes[0])
        self.assertIn(self.name, self.node.files())

    def test_one_that_raises_at_the_last_moment_keeps_the_file(self) -> None:
        file = self.file_of(
            self.node.run(fake_witnesses.Raises('look_again')), self.name
        )
        self.assertIn('Raises: it has failed', file.reason)
        self.assertIn(self.name, self.node.files())


GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
KEEP = decide.Action.KEEP
Verdict = knowledge.Verdict


@ddt.ddt
class RemovalTest(nodes.NodeTestCase):
    """What passes remove, on real files."""

    def assert_kept(self, name: str, *words: str) -> None:
        file = self.file_of(self.node.run(), name)
        self.assertEqual(KEEP, file.action)
        for word in words:
            self.assertIn(word, file.reason)
        self.assertIn(name, self.node.files())

    def test_an_unused_original_goes_after_a_day_with_its_checksum(
        self,
    ) -> None:
        name = self.node.add_image('old', age=3601)
        self.node.configure(checksum=True)
        self.assert_kept(name)
        self.assertEqual({name, f'{name}.sha1'}, self.node.files())
        self.node.clock.advance(25 * base.HOUR - 3601)
        report = self.node.run()
        self.assertEqual([name], [file.name for file in report.removed])
        self.assertEqual(set(), self.node.files())
        self.assertEqual([], os.listdir(self.node.layout.ledgers))

    def test_an_unused_resized_file_goes_after_an_hour(self) -> None:
        name = names.get_cache_fname('x') + '_20'
        self.node.add_base(name, age=3601)
        self.node.run()
        self.assertEqual(set(), self.node.files())

    def test_swap_ephemeral_and_leftovers_go_after_a_day(self) -> None:
        sha = names.get_cache_fname('x')
        for name in (
            'swap_64', 'ephemeral_1_0706d66', f'{sha}.part',
            f'{sha}.converted', f'.{sha}.aB3dEf', f'{sha}.sha1',
        ):  # fmt: skip
            os.chmod(self.node.add_base(name, age=25 * base.HOUR), 0o600)
        report = self.node.run()
        self.assertEqual(6, len(report.removed))
        self.assertEqual(set(), self.node.files())

    def test_names_of_no_pattern_and_no_files_are_left_alone(self) -> None:
        for name in ('README', 'image.part', 'caf\udce9'):
            self.node.add_base(name, age=365 * base.DAY)
        sha = names.get_cache_fname('x')
        os.mkdir(self.node.base_path(sha))
        os.mkfifo(self.node.base_path('swap_64'))
        os.symlink('/etc/passwd', self.node.base_path('f' * 40))
        before = self.node.files()
        self.node.configure(checksum=True)
        self.node.clock.advance(365 * base.DAY)
        self.node.run()
        self.assertEqual(before, self.node.files())

    def test_what_a_guest_uses_is_touched_and_stays(self) -> None:
        name = self.node.add_image('used', age=365 * base.DAY)
        self.node.add_overlay(GUEST, name)
        self.assert_kept(name, 'used by 1 guest')
        self.assertGreater(
            os.stat(self.node.base_path(name)).st_mtime,
            self.node.clock.wall - base.HOUR,
        )

    def test_what_nobody_uses_is_not_touched(self) -> None:
        name = self.node.add_image('unused', age=base.HOUR)
        before = os.stat(self.node.base_path(name)).st_mtime_ns
        self.node.run()
        self.assertEqual(
            before, os.stat(self.node.base_path(name)).st_mtime_ns
        )

    def test_what_is_not_ours_is_touched_through_what_the_host_lends(
        self,
    ) -> None:
        if os.geteuid() != 0:
            self.skipTest('only root has files that are not ours')
        name = self.node.add_image('used', age=365 * base.DAY)
        self.node.add_overlay(GUEST, name)
        for parent, _directories, files in os.walk(self.temporary):
            for path in [parent, *(f'{parent}/{file}' for file in files)]:
                os.chown(path, nodes.NOBODY, nodes.NOBODY)
        path = self.node.base_path(name)
        os.chown(path, 0, 0)
        touched: list[str] = []

        def touch(path: str) -> None:
            touched.append(path)
            os.seteuid(0)
            os.utime(path)
            os.seteuid(nodes.NOBODY)

        with nodes.unprivileged():
            self.assertRaises(PermissionError, os.utime, path)
            pipeline.Pass(
                self.node.settings,
                clock=self.node.clock,
                assembly=panel.Assembly(host.Host(touch_as_root=touch)),
            ).run()
        self.assertEqual([path], touched)
        self.assertGreater(
            os.stat(path).st_mtime, self.node.clock.wall - base.HOUR
        )

    def test_a_touch_that_is_refused_does_not_end_the_pass(self) -> None:
        name = self.node.add_image('used', age=365 * base.DAY)
        overlay = self.node.add_overlay(GUEST, name)
        gone = self.node.add_image('gone', age=365 * base.DAY)

        # Mocked: NFS with root squashed takes a server.
        def utime(*args: Any, **kwargs: Any) -> None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        self.patch(os, 'utime', utime)
        self.node.run()
        self.assertNotIn(gone, self.node.files())
        # The use is remembered all the same.
        os.unlink(overlay)
        self.node.clock.advance(23 * base.HOUR)
        self.assert_kept(name, 'unused')
        self.node.clock.advance(2 * base.HOUR)
        self.node.run()
        self.assertEqual(set(), self.node.files())

    def test_nothing_goes_when_removal_is_off(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        self.node.configure(remove_unused=False)
        self.assert_kept(name, 'removal is off')

    def test_nothing_goes_when_a_disk_cannot_be_read(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        self.node.add_file(GUEST, 'disk', data=b'QFI\xfb garbage')
        self.assert_kept(name, GUEST)
        self.assertIn(GUEST, self.node.run().vetoes[0])

    def test_nothing_goes_when_the_state_is_damaged(self) -> None:
        name = self.node.add_image('old', age=base.HOUR)
        self.node.run()
        with open(self.node.layout.state, 'w') as file:
            file.write('garbage')
        self.node.clock.advance(base.DAY)
        report = self.node.run()
        self.assertIn('damaged', report.vetoes[0])
        self.assertIn(name, self.node.files())
        self.assertTrue(os.path.exists(self.node.layout.state + '.damaged'))
        # When it was used last is not known, so it ages from here.
        self.node.clock.advance(23 * base.HOUR)
        self.assert_kept(name, 'unused for 82800 s')
        self.node.clock.advance(2 * base.HOUR)
        self.node.run()
        self.assertEqual(set(), self.node.files())

    def test_since_when_nothing_may_go_and_when_it_did_is_noted(self) -> None:
        self.node.add_image('old', age=365 * base.DAY)
        disk = self.node.add_file(GUEST, 'disk', data=b'QFI\xfb garbage')
        report = self.node.run()
        state = states.load(self.node.layout)
        (vetoed,) = state.vetoed.values()
        self.assertEqual(
            (self.node.clock(), report.vetoes), (vetoed.since, vetoed.reasons)
        )
        self.assertIsNone(state.last_removal)
        os.unlink(disk)
        self.node.clock.advance(60)
        self.node.run()
        state = states.load(self.node.layout)
        self.assertEqual({}, state.vetoed)
        self.assertEqual(self.node.clock(), state.last_removal)

    def test_a_file_whose_lock_is_held_stays_and_nobody_waits(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        self.useFixture(processes.NovaProcess(self.node.layout.locks, name))
        self.assert_kept(name, 'lock')

    def test_a_file_that_gets_a_user_at_the_last_moment_stays(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        user = testimonies.Testimony(users={name: frozenset({GUEST})})
        file = self.file_of(
            self.node.run(fake_witnesses.SaysLater(user)), name
        )
        self.assertIn(GUEST, file.reason)
        self.assertIn(name, self.node.files())

    def test_a_file_stays_when_a_witness_fails_at_the_last_moment(
        self,
    ) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        failed = testimonies.Testimony(vetoes=(fake_witnesses.blind(),))
        file = self.file_of(
            self.node.run(fake_witnesses.SaysLater(failed)), name
        )
        self.assertIn('blind', file.reason)
        self.assertIn(name, self.node.files())

    def test_an_overlay_made_during_the_pass_is_seen(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        real = removal.remove

        def remove(*args: Any) -> Any:
            self.node.add_overlay(GUEST, name)
            return real(*args)

        self.patch(removal, 'remove', remove)
        self.assert_kept(name, 'begun to use it')

    def test_a_file_touched_during_the_pass_stays(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        real = removal.remove

        def remove(*args: Any) -> Any:
            os.utime(self.node.base_path(name))
            return real(*args)

        self.patch(removal, 'remove', remove)
        self.assert_kept(name, 'touched')

    def test_a_file_touched_while_the_witnesses_look_again_stays(
        self,
    ) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)

        class Touches(fake_witnesses.SaysLater):
            def look_again(
                self, base_files: Collection[str]
            ) -> testimonies.Testimony:
                os.utime(path)
                return testimonies.Testimony()

        path = self.node.base_path(name)
        witness = Touches(testimonies.Testimony())
        file = self.file_of(self.node.run(witness), name)
        self.assertIn('touched', file.reason)
        self.assertIn(name, self.node.files())

    def test_a_file_whose_use_is_noted_during_the_pass_stays(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        real = removal.remove

        def remove(*args: Any) -> Any:
            now = self.node.clock()
            states.note_use(self.node.layout, name, now)
            return real(*args)

        self.patch(removal, 'remove', remove)
        self.assert_kept(name, 'noted')

    def test_locks_that_cannot_be_taken_are_a_problem(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        self.node.add_file('locks')
        report = self.node.run()
        self.assertIn('lock', report.problems[0])
        self.assertIn(name, self.node.files())

    def test_a_trace_that_cannot_be_removed_does_not_hide_the_removal(
        self,
    ) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        os.mkdir(self.node.base_path(f'{name}.sha1'))
        report = self.node.run()
        self.assertEqual([name], [file.name for file in report.removed])
        self.assertIn(f'{name}.sha1', self.log.output)

    def test_a_file_fetched_anew_during_the_pass_stays(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        real = removal.remove

        def remove(*args: Any) -> Any:
            os.unlink(self.node.base_path(name))
            self.node.add_base(name, age=365 * base.DAY)
            return real(*args)

        self.patch(removal, 'remove', remove)
        self.assert_kept(name, 'another file')

    def test_a_file_that_vanishes_is_no_error(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        other = self.node.add_image('other', age=365 * base.DAY)
        real = removal.remove

        def remove(*args: Any) -> Any:
            os.unlink(self.node.base_path(name))
            return real(*args)

        self.patch(removal, 'remove', remove)
        report = self.node.run()
        self.assertEqual((), report.problems)
        self.assertIn('gone', self.file_of(report, name).reason)
        self.assertEqual([other], [file.name for file in report.removed])

    def test_an_immutable_file_is_a_problem_and_the_others_go(self) -> None:
        name = self.node.add_image('stuck', age=365 * base.DAY)
        other = self.node.add_image('other', age=365 * base.DAY)
        path = self.node.base_path(name)
        if subprocess.call(['chattr', '+i', path], stderr=-3) != 0:
            self.skipTest('needs root, and chattr +i on this file system')
        self.addCleanup(subprocess.call, ['chattr', '-i', path])
        report = self.node.run()
        self.assertIn(name, report.problems[0])
        self.assertEqual([other], [file.name for file in report.removed])

    def test_a_checksum_whose_base_file_is_back_stays(self) -> None:
        name = names.get_cache_fname('x')
        self.node.add_base(f'{name}.sha1', age=365 * base.DAY)
        real = removal.remove

        def remove(*args: Any) -> Any:
            self.node.add_base(name)
            return real(*args)

        self.patch(removal, 'remove', remove)
        self.assert_kept(f'{name}.sha1', 'there again')

    def test_a_crash_between_file_and_checksum_is_made_good(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        self.node.configure(checksum=True, remove_unused=False)
        self.node.run()
        self.node.configure(remove_unused=True)

        real = os.unlink

        def unlink(path: Any, *args: Any, **kwargs: Any) -> None:
            if path == self.node.base_path(f'{name}.sha1'):
                raise KeyboardInterrupt
            real(path, *args, **kwargs)

        with base.patched(os, 'unlink', unlink):
            self.assertRaises(KeyboardInterrupt, self.node.run)
        self.assertEqual({f'{name}.sha1'}, self.node.files())
        # Fetched anew meanwhile: what is left of the old one says nothing.
        self.node.add_base(name, data=b'other bytes')
        file = self.file_of(self.node.run(), name)
        self.assertIs(Verdict.UNKNOWN, file.checksum)
        os.unlink(self.node.base_path(name))
        self.node.run()
        # From when it was without its file.
        self.node.clock.advance(25 * base.HOUR)
        self.node.add_base('swap_1')
        self.node.run()
        self.assertEqual({'swap_1', 'swap_1.sha1'}, self.node.files())
        self.assertEqual(['swap_1'], os.listdir(self.node.layout.ledgers))

    def test_no_cache_is_no_error(self) -> None:
        os.rmdir(self.node.layout.base)
        report = self.node.run()
        self.assertEqual(((), ()), (report.files, report.problems))
        self.assertFalse(os.path.exists(self.node.layout.base))

    def test_a_read_only_cache_is_a_problem_and_no_traceback(self) -> None:
        name = self.node.add_image('old', age=365 * base.DAY)
        os.chmod(self.node.layout.base, 0o555)
        os.chmod(self.node.layout.instances, 0o777)
        self.addCleanup(os.chmod, self.node.layout.base, 0o755)
        self.node.configure(checksum=True)
        with nodes.unprivileged():
            report = self.node.run()
        self.assertIn('cannot be written to', report.problems[0])
        self.assertIn('Permission denied', ' '.join(report.problems))
        self.assertIs(KEEP, self.file_of(report, name).action)

    def test_a_preview_changes_nothing(self) -> None:
        self.node.add_image('old', age=365 * base.DAY)
        self.node.add_overlay(GUEST, self.node.add_image('used', age=base.DAY))
        self.node.configure(checksum=True)
        before = self.snapshot()
        report = self.node.make_pass().preview()
        self.assertEqual(1, len(report.removed))
        self.assertTrue(report.dry_run)
        self.assertEqual(before, self.snapshot())

    def snapshot(self) -> dict[str, tuple[int, int]]:
        found = {}
        for directory, _directories, files in os.walk(self.temporary):
            for name in [*files, '.']:
                path = os.path.join(directory, name)
                seen = os.lstat(path)
                found[path] = (seen.st_ino, seen.st_ctime_ns)
        return found

    def test_stale_scratch_files_of_ours_are_removed(self) -> None:
        self.node.add_image('x')
        os.makedirs(self.node.layout.temporary)
        path = os.path.join(self.node.layout.temporary, 'scratch')
        with open(path, 'w'):
            pass
        # A second name of a file has its mtime, which says nothing.
        os.utime(path, (0, 0))
        self.node.run()
        self.assertTrue(os.path.exists(path))
        self.node.clock.advance(base.DAY)
        self.node.run()
        self.assertFalse(os.path.exists(path))
