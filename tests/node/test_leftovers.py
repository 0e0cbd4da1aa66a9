# SPDX-License-Identifier: Apache-2.0

"""What fetches leave behind, and what only looks like it."""

import dataclasses
import os
import shutil
import signal
import stat
import string
import subprocess
import tempfile

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.cache import qemu_locks
from nova_imagecache.cache import trash
from nova_imagecache import names
from nova_imagecache.passes import decide
from nova_imagecache.passes import reports
from tests.support import base
from tests.support import nodes
from tests.support import processes
from tests.support import shell

SHA = names.get_cache_fname('fetched')
OLD = 25 * base.HOUR


@dataclasses.dataclass(frozen=True)
class File:
    """A file that somebody has left in a cache.

    :ivar ours: whether Nova, rsync or this package has
    """

    name: str
    mode: int
    ours: bool


_ALNUM = string.ascii_letters + string.digits
_HEX = st.text('0123456789abcdef', min_size=6, max_size=6)
_BASES = st.sampled_from([SHA, f'{SHA}_20', 'swap_64', 'ephemeral_1_0706d66'])
_ADDED = st.sampled_from(['.part', '.converted'])
_RANDOM = st.text(_ALNUM, min_size=6, max_size=6)
_CAPITAL = _RANDOM.filter(lambda text: text != text.lower())
_MODES = st.sampled_from([0o644, 0o640, 0o600, 0o664, 0o400])
_PUBLIC = _MODES.filter(lambda mode: bool(mode & 0o077))
_PRIVATE = st.sampled_from([0o600, 0o700])

_NOVAS = st.builds(
    lambda name, added, mode: File(name + added, mode, True),
    _BASES, _ADDED | st.just('.sha1'), _MODES,
)  # fmt: skip
_OURS = st.builds(
    lambda name, random, added, mode: File(
        f'.{name}.imagecache-{random}{added}', mode, True
    ),
    _BASES, _HEX, _ADDED | st.just(''), _MODES,
)  # fmt: skip
_OURS_BEFORE = st.builds(
    lambda name, random, added, mode: File(
        f'.{name}.{random}{added}', mode, True
    ),
    _BASES, _HEX, _ADDED, _MODES,
)  # fmt: skip
_RSYNCS = st.builds(
    lambda name, random, mode: File(f'.{name}.{random}', mode, True),
    _BASES, _CAPITAL, _PRIVATE,
)  # fmt: skip
# What is like rsync's, but for its mode or for a name that people give.
_HIDDEN = st.builds(
    lambda name, random, mode: File(f'.{name}.{random}', mode, False),
    _BASES, _RANDOM, _PUBLIC,
) | st.builds(
    lambda name, word, mode: File(f'.{name}.{word}', mode, False),
    _BASES,
    st.sampled_from(['backup', 'saved1', '260101', 'decade', 'before'])
    | _RANDOM.map(str.lower),
    _MODES,
)  # fmt: skip
_OTHERS = st.builds(
    lambda form, name, mode: File(form.format(name), mode, False),
    st.sampled_from([
        '{}~', '{}.bak', '{}.orig', '.{}.swp', '.{}.un~', '#{}#', '.#{}',
        '.~lock.{}#', '{}.part~', '{}.part.sha1', '{}.sha1.sha1', '.{}.part',
        '{}.6b05d097', '{}.part.6b05d097', '.{}.Ab3dEf.6b05d097',
        '.{}.Ab3dEfg', '{}.imagecache-abc123', '.{}.imagecache-backup',
        '.nfs{}', '.fuse_hidden{}', 'copy of {}', '{}.qcow2',
    ]),
    _BASES,
    _MODES,
)  # fmt: skip
_FILES = _NOVAS | _OURS | _OURS_BEFORE | _RSYNCS | _HIDDEN | _OTHERS


def _bytes_at(path: str) -> bytes:
    with open(path, 'rb') as file:
        return file.read()


def _version(path: str) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


class LeftoverTestCase(nodes.NodeTestCase):
    def add(self, name: str, mode: int = 0o644, age: float = OLD) -> str:
        path = self.node.add_base(name, age=age)
        os.chmod(path, mode)
        return path

    def trashed(self) -> dict[str, bytes]:
        """Give what is in each file in the trash, by its name before."""
        return {
            file.original: _bytes_at(file.path)
            for file in trash.scan(self.node.layout).files
        }

    def row(self, report: reports.Report) -> reports.FileReport:
        (row,) = report.trash
        return row


class AnythingTest(LeftoverTestCase):
    @hypothesis.settings(max_examples=60)
    @hypothesis.given(
        st.lists(_FILES, min_size=1, unique_by=lambda file: file.name)
    )
    def test_what_leaves_the_cache_is_in_the_trash_and_no_others_do(
        self, files: list[File]
    ) -> None:
        with tempfile.TemporaryDirectory(dir=self.temporary) as path:
            self.node = nodes.Node(path)
            before = {}
            for file in files:
                self.add(file.name, file.mode)
                before[file.name] = self.look_at(file.name)
            self.node.run()
            ours = {file.name for file in files if file.ours}
            self.assertEqual(set(before) - ours, self.node.files())
            self.assertEqual(
                {name: before[name][0] for name in ours}, self.trashed()
            )
            self.node.clock.advance(2 * base.HOUR)
            self.node.run()
            self.assertEqual({}, self.trashed())
            for name in set(before) - ours:
                self.assertEqual(before[name], self.look_at(name))

    def look_at(self, name: str) -> tuple[bytes, int, int]:
        path = self.node.base_path(name)
        status = os.lstat(path)
        return _bytes_at(path), status.st_mode, status.st_mtime_ns


@ddt.ddt
class OperatorTest(LeftoverTestCase):
    """An operator's own hidden copy of a base file."""

    @ddt.data(
        (f'.{SHA}.backup', 0o644),
        (f'.{SHA}.saved1', 0o644),
        (f'.{SHA}.260101', 0o644),
        (f'.{SHA}.decade', 0o644),
        (f'.{SHA}.Backup', 0o644),
        # As a restrictive umask has it.
        (f'.{SHA}.backup', 0o600),
        (f'.{SHA}.decade', 0o600),
    )
    @ddt.unpack
    def test_it_is_left_alone(self, name: str, mode: int) -> None:
        path = self.add(name, mode, age=365 * base.DAY)
        before = _version(path)
        report = self.node.run()
        self.assertEqual(decide.Action.LEAVE, report.files[0].action)
        self.assertEqual(names.Kind.OTHER, report.files[0].kind)
        self.assertEqual(before, _version(path))
        self.assertEqual(set(), self.node.trash())

    def test_what_it_is_a_copy_on_write_of_stays_as_well(self) -> None:
        name = self.node.add_image('image', age=365 * base.DAY)
        copy = self.node.base_path(f'.{name}.backup')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', self.node.base_path(name),
            '-F', 'raw', copy,
        )  # fmt: skip
        self.node.run()
        self.assertEqual({name, f'.{name}.backup'}, self.node.files())

    def test_one_beside_a_leftover_that_goes_stays(self) -> None:
        """It has the name of what would tell of a base file."""
        self.add(f'{SHA}.part')
        path = self.add(f'{SHA}.part.sha1')
        os.makedirs(self.node.layout.ledgers)
        ledger = self.node.layout.ledger(f'{SHA}.part')
        with open(ledger, 'w') as file:
            file.write('x')
        self.node.run()
        self.assertEqual({f'{SHA}.part'}, self.node.trash())
        self.assertTrue(os.path.exists(path))
        self.assertTrue(os.path.exists(ledger))

    def test_half_a_header_in_what_may_be_one_fails_no_witness(self) -> None:
        path = self.add(f'.{SHA}.Ab3dEf', 0o600)
        with open(path, 'wb') as file:
            file.write(b'QFI\xfb\0\0\0\3')
        self.node.set_age(os.path.basename(path), OLD)
        self.assertEqual((), self.node.run().vetoes)
        self.assertEqual({os.path.basename(path)}, self.node.trash())


class RsyncTest(LeftoverTestCase):
    def test_what_a_killed_rsync_leaves_is_what_is_taken_for_it(self) -> None:
        if shutil.which('rsync') is None:
            self.skipTest('rsync is not installed')
        source = os.path.join(self.temporary, SHA)
        with open(source, 'wb') as file:
            file.write(os.urandom(4 * base.MIB))
        os.chmod(source, 0o644)
        # As Nova does.
        process = subprocess.Popen(
            ['rsync', '--bwlimit=64', '--sparse', '--compress', source,
             self.node.base_path(SHA)],
            start_new_session=True,
        )  # fmt: skip
        self.addCleanup(process.wait)
        processes.wait_for(lambda: bool(self.node.files()))
        os.killpg(process.pid, signal.SIGKILL)
        (name,) = self.node.files()
        self.assertEqual(SHA, names.leftover_of(name))
        mode = os.lstat(self.node.base_path(name)).st_mode
        self.assertTrue(stat.S_ISREG(mode))
        self.assertEqual(0, mode & 0o077)
        self.assertEqual(
            names.Kind.LEFTOVER, names.kind_of(f'.{SHA}.Ab3dEf', mode)
        )


class TrashTest(LeftoverTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = f'{SHA}.part'
        self.data = _bytes_at(self.add(self.name))

    def in_trash(self) -> str:
        (file,) = trash.scan(self.node.layout).files
        return file.path

    def test_it_stays_there_for_the_retention_and_goes_then(self) -> None:
        self.node.run()
        self.assertEqual({self.name: self.data}, self.trashed())
        self.node.clock.advance(3599)
        self.node.run()
        self.assertEqual({self.name: self.data}, self.trashed())
        self.node.clock.advance(2)
        report = self.node.run()
        self.assertEqual(1, len(report.deleted))
        self.assertEqual({}, self.trashed())
        self.assertEqual(set(), self.node.files())

    def test_a_disk_that_names_it_keeps_it_there_and_is_told(self) -> None:
        self.node.run()
        elsewhere = os.path.join(self.temporary, self.name)
        shutil.copyfile(self.in_trash(), elsewhere)
        self.node.add_overlay('guest', elsewhere)
        self.node.clock.advance(2 * base.HOUR)
        report = self.node.run()
        self.assertEqual(decide.Action.KEEP, self.row(report).action)
        self.assertIn('used by 1 guest', report.notes[0])
        self.assertEqual(set(), self.node.files())
        self.assertEqual({self.name: self.data}, self.trashed())

    def test_a_lock_of_qemu_keeps_it_there(self) -> None:
        self.node.run()
        with open(self.in_trash(), 'rb') as file:
            # As QEMU does.
            qemu_locks._share(file.fileno(), qemu_locks._USES_READ)
            self.node.clock.advance(2 * base.HOUR)
            self.node.run()
            self.assertEqual({self.name: self.data}, self.trashed())
            self.assertEqual(set(), self.node.files())

    def test_one_of_rsyncs_is_one_there_whatever_its_mode_is_now(
        self,
    ) -> None:
        os.unlink(self.node.base_path(self.name))
        self.add(f'.{SHA}.Ab3dEf', 0o600)
        self.node.run()
        os.chmod(self.in_trash(), 0o644)
        self.node.clock.advance(2 * base.HOUR)
        self.node.run()
        self.assertEqual({}, self.trashed())

    def test_a_checksum_without_its_base_file_goes_there_too(self) -> None:
        path = self.add(f'{SHA}.sha1')
        data = _bytes_at(path)
        self.node.run()
        self.assertEqual(
            {self.name: self.data, f'{SHA}.sha1': data}, self.trashed()
        )

    def test_under_pressure_it_goes_before_its_time(self) -> None:
        self.node.run()
        self.node.configure(max_size=1)
        self.node.clock.advance(decide.FLOOR_SECONDS)
        self.node.run()
        self.assertEqual({}, self.trashed())


class CommandTest(shell.ShellTestCase):
    def test_undelete_brings_one_back_and_the_trash_lists_it(self) -> None:
        name = f'{SHA}.part'
        path = self.node.add_base(name, age=OLD)
        data = _bytes_at(path)
        self.run_command('pass')
        (row,) = self.rows('trash')
        self.assertEqual(name, names.trashed_name(row['name']))
        self.assertEqual(('leftover', 'keep'), (row['kind'], row['action']))
        (row,) = self.rows('undelete', name)
        self.assertEqual('leftover', row['kind'])
        self.assertEqual(data, _bytes_at(path))
        self.assertEqual(set(), self.node.trash())
        # It counts as used now.
        self.run_command('pass')
        self.assertEqual({name}, self.node.files())
