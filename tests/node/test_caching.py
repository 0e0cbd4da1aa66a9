# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import io
import os
import shutil
import threading
from typing import Any

import ddt
from oslo_concurrency import lockutils
from oslo_concurrency import processutils

from nova_imagecache.cache import layouts
from nova_imagecache.cache import locks
from nova_imagecache import conf
from nova_imagecache import errors
from nova_imagecache.fetch import images
from nova_imagecache import hook
from nova_imagecache import names
from tests.support import base
from tests.support import nodes
from tests.support import processes

NAME = hook.get_cache_fname('image')
RANDOM = os.urandom(base.MIB)


@contextlib.contextmanager
def no_lock(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


class FetchTestCase(nodes.FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.instances = os.path.join(self.temporary, 'instances')
        self.cache_dir = os.path.join(self.instances, '_base')
        self.base_file = os.path.join(self.cache_dir, NAME)
        self.overlay = os.path.join(self.temporary, 'disk')
        self.conf = base.make_conf(instances_path=self.instances)
        self.fetched: list[str] = []

    def fetch(self, path: str) -> None:
        """Fetch a raw image of random bytes."""
        self.fetched.append(path)
        with open(path, 'wb') as file:
            file.write(RANDOM)

    def fetch_image(self, *create: str) -> Callable[[str], None]:
        """Make a fetch of what qemu-img creates."""

        def fetch(path: str) -> None:
            nodes.qemu_img('create', *create[:-1], path, create[-1])

        return fetch

    def cache(self, fetch: Any = None, name: str = NAME, **kwargs: Any) -> str:
        return hook.cache_image(
            fetch or self.fetch, name, conf=self.conf, **kwargs
        )

    def files(self) -> list[str]:
        return sorted({*os.listdir(self.cache_dir)} - {names.OWN_DIRECTORY})


@ddt.ddt
class CacheImageTest(FetchTestCase):
    def test_an_image_is_fetched_once(self) -> None:
        for _attempt in range(2):
            self.assertEqual(self.base_file, self.cache())
        (staged,) = self.fetched
        self.assertEqual(NAME, names.leftover_of(os.path.basename(staged)))
        with open(self.base_file, 'rb') as file:
            self.assertEqual(RANDOM, file.read())

    @ddt.data(errno.EIO, errno.ESTALE, errno.EACCES)
    def test_nothing_is_fetched_over_what_cannot_be_seen(
        self, code: int
    ) -> None:
        self.cache()
        real = os.stat

        # Mocked: a server that fails for a while.
        def stat_or_fail(path: Any, *args: Any, **kwargs: Any) -> Any:
            if path == self.base_file:
                raise OSError(code, os.strerror(code))
            return real(path, *args, **kwargs)

        with base.patched(os, 'stat', stat_or_fail):
            self.cache()
        self.assertEqual(1, len(self.fetched))

    def test_no_checksum_is_computed(self) -> None:
        self.conf.set_override(
            'checksum_base_images', True, group='image_cache'
        )
        self.cache(overlay=self.overlay)
        self.assertEqual([NAME], self.files())

    def bytes_read(self) -> int:
        """Count what this process and those it waited for have read.

        Everything that goes through read(2), be it from the page cache.
        """
        with open('/proc/self/io') as file:
            counters = dict(line.split(': ') for line in file)
        return int(counters['rchar'])

    def test_nothing_but_headers_is_read_back(self) -> None:
        size = 64 * base.MIB
        reads: list[int] = []
        real = io.FileIO.read

        class CountingFileIO(io.FileIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = real(self, size)
                assert data is not None
                reads.append(len(data))
                return data

        def fetch(path: str) -> None:
            with open(path, 'wb') as file:
                for _chunk in range(64):
                    file.write(RANDOM)

        # Once without counting, so that all that is imported has been read.
        self.cache(name=hook.get_cache_fname('other'), fetch=fetch)
        self.patch(os, 'fdopen', lambda fd, *a, **k: CountingFileIO(fd))
        before = self.bytes_read()
        self.cache(fetch=fetch)
        total = self.bytes_read() - before
        self.assertEqual(size, os.path.getsize(self.base_file))
        # What the format inspector of oslo.utils wants of a raw image.
        self.assertEqual(256 * base.KIB, sum(reads))
        self.assertLess(total, sum(reads) + 64 * base.KIB)

    def test_the_base_file_appears_complete_or_not_at_all(self) -> None:
        seen: list[bool] = []

        def fetch(path: str) -> None:
            self.fetch(path)
            seen.append(os.path.exists(self.base_file))

        self.cache(fetch)
        self.assertEqual([False], seen)
        self.assertEqual([NAME], self.files())

    def test_what_fetch_raises_comes_out_and_nothing_is_left(self) -> None:
        class NoSuchImage(Exception):
            pass

        def fetch(path: str) -> None:
            self.fetch(path)
            raise NoSuchImage

        self.assertRaises(NoSuchImage, self.cache, fetch)
        self.assertEqual([], self.files())
        self.cache()

    def test_a_fetch_that_writes_nothing_is_an_error(self) -> None:
        self.assertRaises(hook.FetchFailed, self.cache, lambda path: None)

    def test_what_a_killed_fetch_left_is_not_continued(self) -> None:
        os.makedirs(self.cache_dir)
        with open(self.base_file + '.part', 'wb') as file:
            file.write(bytes(5 * base.MIB))
        self.cache()
        self.assertEqual(base.MIB, os.path.getsize(self.base_file))

    def test_an_image_that_is_there_counts_as_used_now(self) -> None:
        self.cache()
        os.utime(self.base_file, (1, 1))
        self.cache()
        self.assertGreater(os.stat(self.base_file).st_mtime, 1)

    def test_a_fetch_that_copies_old_times_is_used_now(self) -> None:
        def fetch(path: str) -> None:
            self.fetch(path)
            os.utime(path, (1, 1))

        self.cache(fetch)
        self.assertGreater(os.stat(self.base_file).st_mtime, 1)

    def test_a_use_is_noted_where_touching_is_refused(self) -> None:
        self.cache()
        os.utime(self.base_file, (1, 1))

        # Mocked: a file of QEMU's user needs another user.
        def utime(*args: Any, **kwargs: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        self.patch(os, 'utime', utime)
        self.cache()
        report = hook.ImageCacheManager(self.conf).update(None, [])
        self.assertEqual((), report.removed)
        self.assertEqual(0, report.files[0].age_seconds)

    def test_no_use_is_lost_when_many_are_noted_at_once(self) -> None:
        names = [hook.get_cache_fname(str(number)) for number in range(16)]
        for name in names:
            self.cache(name=name)
            os.utime(os.path.join(self.cache_dir, name), (1, 1))

        # Mocked: a file of QEMU's user needs another user.
        def utime(*args: Any, **kwargs: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        self.patch(os, 'utime', utime)
        threads = [
            threading.Thread(target=self.cache, kwargs={'name': name})
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report = hook.ImageCacheManager(self.conf).update(None, [])
        self.assertEqual((), report.removed)

    def test_the_base_file_and_its_name_are_made_durable(self) -> None:
        synced = self.note_syncs()
        self.cache()
        self.assertEqual([*self.fetched, self.cache_dir], synced)

    def test_nobody_else_writes_to_the_file_that_is_fetched(self) -> None:
        # Stock Nova unlinks lock files, and then two hold "the same" lock.
        locks_path = os.path.join(self.instances, 'locks')

        def fetch(path: str) -> None:
            with open(path, 'wb') as file:
                file.write(RANDOM[:1000])
            if not self.fetched:
                self.fetched.append(path)
                shutil.rmtree(locks_path)
                with (
                    base.patched(lockutils, 'internal_lock', no_lock),
                    base.patched(locks, 'user_lock', no_lock),
                ):
                    self.cache(fetch)
            with open(path, 'ab') as file:
                file.write(RANDOM[1000:])

        self.cache(fetch)
        with open(self.base_file, 'rb') as file:
            self.assertEqual(RANDOM, file.read())
        self.assertEqual([NAME], self.files())

    def test_nova_and_we_do_not_fetch_at_once(self) -> None:
        nova = self.useFixture(
            processes.NovaProcess(os.path.join(self.instances, 'locks'), NAME)
        )
        waiting = self.useFixture(processes.Waiting())
        thread = threading.Thread(target=self.cache)
        thread.start()
        self.assertTrue(waiting.wait())
        self.assertEqual([], self.fetched)
        nova.end()
        thread.join()
        self.assertEqual(1, len(self.fetched))

    def test_two_threads_fetch_once(self) -> None:
        came: set[int] = set()
        both = threading.Event()
        real = locks.user_lock

        def user_lock(*args: Any) -> Any:
            came.add(threading.get_ident())
            if len(came) == 2:
                both.set()
            return real(*args)

        def fetch(path: str) -> None:
            # By then the other one has seen that there is no base file.
            both.wait(processes.PATIENCE_SECONDS)
            self.fetch(path)

        self.patch(locks, 'user_lock', user_lock)
        threads = [
            threading.Thread(target=self.cache, args=[fetch])
            for _each in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(1, len(self.fetched))

    @ddt.data(
        '', '.', '..', '../x', 'a/b', 'image', '.imagecache', NAME + '.part',
        NAME + '.sha1', NAME[:-1], NAME + '/..',
    )  # fmt: skip
    def test_a_name_of_no_base_file_is_refused(self, name: str) -> None:
        self.assertRaises(ValueError, self.cache, name=name)
        self.assertEqual([], self.fetched)

    def test_swap_and_ephemeral_files_are_the_drivers_own(self) -> None:
        # Never judged: the bytes are not a user's.
        for name in ('swap_64', 'ephemeral_1_0706d66'):
            path = self.cache(self.fetch_image('-f', 'vmdk', '1M'), name=name)
            self.assertTrue(os.path.exists(path))

    def test_a_bad_option_is_refused_before_anything_is_done(self) -> None:
        self.conf.set_override('subdirectory_name', '..', group='image_cache')
        self.assertRaises(hook.InvalidOption, self.cache)
        self.assertEqual([], self.fetched)


@ddt.ddt
class DiskTest(FetchTestCase):
    @ddt.data('raw', 'qcow2')
    def test_an_overlay_is_made_over_the_base_file(self, form: str) -> None:
        self.cache(
            self.fetch_image('-f', form, '8M'),
            disk_format=form,
            overlay=self.overlay,
            size=16 * base.MIB,
        )
        top, bottom = nodes.backing_chain(self.overlay)
        self.assertEqual('qcow2', top['format'])
        self.assertEqual(16 * base.MIB, top['virtual-size'])
        self.assertEqual(self.base_file, top['full-backing-filename'])
        self.assertEqual(form, top['backing-filename-format'])
        self.assertEqual(form, bottom['format'])

    def test_an_overlay_that_is_there_is_left_alone(self) -> None:
        with open(self.overlay, 'w') as file:
            file.write('a disk')
        self.cache(overlay=self.overlay)
        with open(self.overlay) as file:
            self.assertEqual('a disk', file.read())

    def test_an_overlay_smaller_than_the_image_is_refused(self) -> None:
        error = self.assertRaises(
            hook.FetchFailed, self.cache, overlay=self.overlay, size=4096
        )
        self.assertIn('4096', str(error))
        self.assertFalse(os.path.exists(self.overlay))

    def test_an_overlay_that_cannot_be_made_leaves_nothing(self) -> None:
        overlay = '/no/such/directory/disk'
        error = self.assertRaises(
            hook.FetchFailed, self.cache, overlay=overlay
        )
        self.assertIn('qemu-img create', str(error))
        self.assertEqual([NAME], self.files())

    def test_a_missing_qemu_img_is_a_clear_error(self) -> None:
        self.patch(os, 'environ', dict(os.environ, PATH='/no/such'))
        error = self.assertRaises(
            hook.FetchFailed, self.cache, overlay=self.overlay
        )
        self.assertIn('qemu-img', str(error))
        self.assertNotIn('\n', str(error))

    def test_qemu_img_runs_within_limits(self) -> None:
        limits: list[Any] = []
        real = processutils.execute

        def execute(*command: str, **kwargs: Any) -> Any:
            limits.append(kwargs['prlimit'])
            return real(*command, **kwargs)

        self.patch(processutils, 'execute', execute)
        self.cache(overlay=self.overlay)
        self.assertEqual(1024 * base.MIB, limits[0].address_space)
        self.assertEqual(30, limits[0].cpu_time)

    @ddt.data('raw', 'qcow2')
    def test_a_resized_base_file_is_a_grown_copy(self, form: str) -> None:
        size = 32 * base.MIB
        path = self.cache(
            self.fetch_image('-f', form, '8M'),
            resize_to=size,
            overlay=self.overlay,
        )
        self.assertEqual(f'{self.base_file}_{size}', path)
        self.assertEqual([NAME, f'{NAME}_{size}'], self.files())
        top, bottom = nodes.backing_chain(self.overlay)
        self.assertEqual(path, top['full-backing-filename'])
        self.assertEqual(size, bottom['virtual-size'])
        self.assertEqual(form, bottom['format'])
        self.assertNotIn('backing-filename', bottom)

    def test_a_resized_file_keeps_the_bytes(self) -> None:
        path = self.cache(resize_to=2 * base.MIB)
        with open(path, 'rb') as file:
            self.assertEqual(RANDOM + bytes(base.MIB), file.read())
        self.assertEqual(path, self.cache(resize_to=2 * base.MIB))

    def is_held(self, name: str) -> bool:
        """Say whether Nova could have the lock of a base file."""
        layout = layouts.Layout.of(conf.read_settings(self.conf))
        try:
            with locks.nova_lock(layout, name, blocking=False):
                return False
        except errors.Locked:
            return True

    def test_while_a_resized_file_is_copied_nobody_else_has_its_lock(
        self,
    ) -> None:
        resized = f'{NAME}_{2 * base.MIB}'
        held: list[bool] = []
        real = images.copy_resized

        def copy_resized(*args: Any) -> None:
            held.append(self.is_held(resized))
            real(*args)
            held.append(self.is_held(resized))

        self.patch(images, 'copy_resized', copy_resized)
        self.cache(resize_to=2 * base.MIB)
        self.assertEqual([True, True], held)
        self.assertFalse(self.is_held(resized))

    @ddt.data(None, 2 * base.MIB)
    def test_while_an_overlay_is_made_nobody_else_has_its_base_files_lock(
        self, resize_to: int | None
    ) -> None:
        held: list[bool] = []
        real = images.create_overlay

        def create_overlay(overlay: str, path: str, *args: Any) -> None:
            held.append(self.is_held(os.path.basename(path)))
            real(overlay, path, *args)

        self.patch(images, 'create_overlay', create_overlay)
        path = self.cache(resize_to=resize_to, overlay=self.overlay)
        self.assertEqual([True], held)
        self.assertFalse(self.is_held(os.path.basename(path)))

    def test_a_resized_file_does_not_shrink(self) -> None:
        self.assertRaises(hook.FetchFailed, self.cache, resize_to=4096)
        self.assertEqual([NAME], self.files())

    def test_only_originals_are_resized(self) -> None:
        self.assertRaises(
            ValueError, self.cache, name='swap_64', resize_to=base.MIB
        )

    def test_a_copy_that_fails_leaves_nothing(self) -> None:
        self.cache()
        self.patch(os, 'environ', dict(os.environ, PATH='/no/such'))
        self.assertRaises(hook.FetchFailed, self.cache, resize_to=2**21)
        self.assertEqual([NAME], self.files())


@ddt.ddt
class RefusalTest(FetchTestCase):
    """Images that must not get into the cache."""

    def assert_refused(self, fetch: Any, *words: str, **kwargs: Any) -> None:
        error = self.assertRaises(
            hook.ImageRefused, self.cache, fetch, **kwargs
        )
        for word in words:
            self.assertIn(word, str(error))
        self.assertEqual([], self.files())

    def test_an_image_with_a_backing_file(self) -> None:
        other = os.path.join(self.temporary, 'other')
        nodes.qemu_img('create', '-f', 'raw', other, '1M')
        self.assert_refused(
            self.fetch_image('-f', 'qcow2', '-b', other, '-F', 'raw', '1M'),
            'safety',
        )

    def test_an_image_with_an_external_data_file(self) -> None:
        data = os.path.join(self.temporary, 'data')
        self.assert_refused(
            self.fetch_image('-f', 'qcow2', '-o', f'data_file={data}', '1M'),
            'safety',
        )

    @ddt.data('vmdk', 'vdi', 'vhdx', 'qed', 'qcow')
    def test_an_image_of_another_format(self, form: str) -> None:
        self.assert_refused(self.fetch_image('-f', form, '1M'))

    def test_an_image_that_is_not_what_it_is_said_to_be(self) -> None:
        self.assert_refused(
            self.fetch_image('-f', 'qcow2', '1M'), 'raw', disk_format='raw'
        )
        self.assert_refused(
            self.fetch_image('-f', 'raw', '1M'), 'qcow2', disk_format='qcow2'
        )

    def test_an_image_said_to_be_of_an_unknown_format(self) -> None:
        self.assert_refused(
            self.fetch, 'banana', 'raw or qcow2', disk_format='banana'
        )

    def test_an_image_of_two_formats_at_once(self) -> None:
        def fetch(path: str) -> None:
            nodes.qemu_img('create', '-f', 'qcow2', path, '1M')
            with open(path, 'r+b') as file:
                file.seek(32 * base.KIB)
                file.write(b'\x01CD001\x01'.ljust(2048, b'\0'))
                file.seek(510)
                file.write(b'\x55\xaa')

        self.assert_refused(fetch)

    @ddt.data('symlink', 'directory', 'fifo')
    def test_what_is_no_regular_file(self, kind: str) -> None:
        def fetch(path: str) -> None:
            if kind == 'symlink':
                os.symlink('/etc/passwd', path)
            elif kind == 'fifo':
                os.mkfifo(path)
            else:
                os.mkdir(path)

        error = self.assertRaises(OSError, self.cache, fetch)
        self.assertIn('regular', str(error))
        self.assertNotIn(NAME, self.files())

    def test_a_bootable_iso_with_a_gpt_is_an_iso(self) -> None:
        data = self.hybrid_iso()

        def fetch(path: str) -> None:
            with open(path, 'wb') as file:
                file.write(data)

        self.cache(fetch, disk_format='iso')
        self.assertEqual([NAME], self.files())

    def hybrid_iso(self) -> bytes:
        """Build what matters of an ISO that boots from a stick too."""
        data = bytearray(base.MIB)
        # The protective partition of a GPT, over the whole disk.
        data[446 : 446 + 16] = b'\0\0\2\0\xee\xff\xff\xff\1\0\0\0\xff\7\0\0'
        data[510:512] = b'\x55\xaa'
        data[32768 : 32768 + 7] = b'\x01CD001\x01'
        return bytes(data)
