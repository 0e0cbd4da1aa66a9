# SPDX-License-Identifier: Apache-2.0

"""Getting blocks from an image service, by the real clients."""

from collections.abc import Callable
import contextlib
import hashlib
import json
import os
import random
import socket
import struct
import threading
import time
from typing import Any

import ddt
import fixtures
import urllib3

from nova_imagecache.cache import layouts
from nova_imagecache.conf import Settings
from nova_imagecache.heal import automatic
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import clients
from nova_imagecache.heal.sources import image_api
from nova_imagecache.heal.sources import image_service
from nova_imagecache.heal.sources import images
from nova_imagecache.heal.sources import other_stores
from nova_imagecache.heal.sources import qemu
from nova_imagecache.heal.sources import streams
from nova_imagecache import names
from tests.support import base
from tests.support import image_server
from tests.support import mounts
from tests.support import nodes
from tests.support import processes

State = sources.State
Handler = image_server.Handler

BLOCK = 4 * base.MIB
# Of the record of the image.
RECORD = 1024
HEAD = 64 * base.KIB
TABLES = 512 * base.KIB


def make_content(blocks: int = 4) -> bytes:
    """Make a disk: noise, zeros, and what can be compressed, in turn."""
    noise = random.Random(20261129)
    kinds = (
        noise.randbytes(BLOCK),
        bytes(BLOCK // 2) + noise.randbytes(BLOCK // 2),
        b'0123456789abcdef' * (BLOCK // 16),
        bytes(BLOCK),
    )
    return b''.join(kinds[index % 4] for index in range(blocks))


CONTENT = make_content()


class ImageServiceTestCase(nodes.FileTestCase):
    """A cache's base file, and the image it was made from."""

    def setUp(self) -> None:
        super().setUp()
        self.raw = self.put('raw', CONTENT)
        self.base = sources.Base(
            names.get_cache_fname(image_server.ID),
            self.raw,
            len(CONTENT),
            image_server.ID,
        )

    def put(self, name: str, content: bytes) -> str:
        path = os.path.join(self.temporary, name)
        with open(path, 'wb') as file:
            file.write(content)
        return path

    def convert(self, disk_format: str, *options: str) -> str:
        path = os.path.join(self.temporary, 'image')
        nodes.qemu_img('convert', '-O', disk_format, *options, self.raw, path)
        return path

    def serve(self, path: str, **values: Any) -> image_server.ImageServer:
        self.server = self.useFixture(
            image_server.ImageServer(image_server.Stored(path, **values))
        )
        self.source = image_service.ImageService(
            self.server.client, self.temporary
        )
        return self.server

    def read(self, *blocks: int) -> list[bytes]:
        wanted = [sources.Wanted(each * BLOCK, BLOCK) for each in blocks]
        pieces = list(self.source.read(self.base, wanted))
        self.assertEqual(wanted, [piece.wanted for piece in pieces])
        return [piece.data for piece in pieces]

    def assert_right(self, *blocks: int) -> None:
        found = self.read(*blocks)
        for index, data in zip(blocks, found, strict=True):
            expected = CONTENT[index * BLOCK : (index + 1) * BLOCK]
            self.assertTrue(expected == data, f'block {index} is wrong')

    def assert_refused(self, state: State, *blocks: int) -> str:
        error = self.assertRaises(
            sources.Unavailable, self.read, *(blocks or (0,))
        )
        self.assertEqual(state, error.state, str(error))
        self.assertNotIn('\n', str(error))
        return str(error)

    def assert_nothing_left(self) -> None:
        self.assertLessEqual(
            set(os.listdir(self.temporary)), {'raw', 'image', 'other'}
        )


@ddt.ddt
class PartsTest(ImageServiceTestCase):
    def test_what_qemu_img_is_given_has_names_that_others_can_open(
        self,
    ) -> None:
        """What a process that was root has open, nobody else can look into."""
        given: list[str] = []
        real = qemu._run

        def run(*command: str, **values: Any) -> None:
            given.extend(command)
            real(*command, **values)

        self.patch(qemu, '_run', run)
        self.serve(self.convert('qcow2'), disk_format='qcow2')
        self.assert_right(0)
        told = ' '.join(given)
        self.assertEqual(2, told.count(self.temporary))
        self.assertNotIn('/proc', told)
        self.assertNotIn('/dev/fd', told)

    def test_a_block_of_a_raw_image_is_one_request_for_just_that(self) -> None:
        self.serve(self.raw)
        self.assert_right(1)
        self.assertEqual(['bytes=4194304-8388607'], self.server.asked)
        self.assertEqual(BLOCK, self.server.sent)
        self.assertLessEqual(self.source.fetched, BLOCK + RECORD)

    def test_the_short_last_block_is_got(self) -> None:
        self.base = sources.Base(
            self.base.name, self.raw, 4096 + 100, image_server.ID
        )
        os.truncate(self.raw, 4096 + 100)
        self.serve(self.raw)
        wanted = sources.Wanted(4096, 100)
        (piece,) = self.source.read(self.base, [wanted])
        self.assertEqual(CONTENT[4096:4196], piece.data)
        self.assertIn(image_server.ID, piece.origin)

    @ddt.data(
        (),
        ('-c',),
        ('-c', '-o', 'compression_type=zstd'),
        ('-o', 'compat=0.10'),
        ('-c', '-o', 'compat=0.10'),
        ('-o', 'cluster_size=4k'),
        ('-c', '-o', 'cluster_size=2M'),
    )
    def test_blocks_of_a_converted_image_come_through_its_tables(
        self, options: tuple[str, ...]
    ) -> None:
        self.serve(self.convert('qcow2', *options), disk_format='qcow2')
        for block in range(4):
            before = self.source.fetched
            self.assert_right(block)
            fetched = self.source.fetched - before
            self.assertLessEqual(fetched, BLOCK + TABLES)
        # What is compressed comes as it is: 4 MiB of text in some KiB.
        if '-c' in options:
            before = self.source.fetched
            self.read(2)
            self.assertLess(self.source.fetched - before, 256 * base.KIB)
        self.assert_nothing_left()

    def test_a_hole_is_known_from_the_tables_alone(self) -> None:
        self.serve(self.convert('qcow2'), disk_format='qcow2')
        self.assert_right(3)
        self.assertLess(self.source.fetched, HEAD + 2 * base.KIB)

    def test_many_blocks_take_the_header_once(self) -> None:
        self.serve(self.convert('qcow2'), disk_format='qcow2')
        self.assert_right(0, 1, 2, 3)
        self.assertEqual(1, self.server.asked.count('bytes=0-65535'))

    def test_a_resized_file_has_its_image_in_front(self) -> None:
        self.base = sources.Base(
            f'{self.base.name}_1', self.raw, 5 * BLOCK, image_server.ID
        )
        self.serve(self.convert('qcow2'), disk_format='qcow2')
        self.assert_right(2)
        self.assertEqual([bytes(BLOCK)], self.read(4))

    def test_a_base_file_in_qcow2_is_what_its_image_is(self) -> None:
        path = self.convert('qcow2')
        size = os.path.getsize(path)
        self.base = sources.Base(self.base.name, path, size, image_server.ID)
        self.serve(path, disk_format='qcow2')
        (piece,) = self.source.read(self.base, [sources.Wanted(0, 4096)])
        self.assertTrue(piece.data.startswith(b'QFI\xfb'))

    def test_internal_snapshots_are_no_obstacle(self) -> None:
        path = self.convert('qcow2')
        nodes.qemu_img('snapshot', '-c', 'one', path)
        self.serve(path, disk_format='qcow2')
        self.assert_right(0, 1)


@ddt.ddt
class OtherStoresTest(ImageServiceTestCase):
    """One of two stores has damaged data, and is the one that is taken."""

    def serve_damaged(
        self, form: str, damaged: bytes | None = None, **values: Any
    ) -> None:
        good = self.convert(form)
        with open(good, 'rb') as file:
            data = bytearray(file.read())
        # In the second half of block 1, which is no zeros.
        data[data.index(CONTENT[BLOCK + BLOCK // 2 :][:64])] ^= 1
        bad = self.put('other', bytes(data) if damaged is None else damaged)
        self.serve(
            good, disk_format=form, stores='one,two', paths={'one': bad},
            **values,
        )  # fmt: skip
        self.others = other_stores.OtherStores(self.source)

    def first(self, *blocks: int) -> list[bytes]:
        wanted = [sources.Wanted(each * BLOCK, BLOCK) for each in blocks]
        return [each.data for each in self.source.read(self.base, wanted)]

    def again(self, *blocks: int) -> list[sources.Piece]:
        """Take until each block is right, as a repair does."""
        wanted = [sources.Wanted(each * BLOCK, BLOCK) for each in blocks]
        found: list[sources.Piece] = []
        given = self.others.read(self.base, wanted)
        with contextlib.closing(given):  # type: ignore[type-var]
            for piece in given:
                start = piece.wanted.start
                if piece.data == CONTENT[start : start + BLOCK]:
                    found.append(piece)
                if len(found) == len(wanted):
                    break
        return found

    @ddt.data('raw', 'qcow2')
    def test_a_part_that_is_wrong_comes_from_another_one(
        self, form: str
    ) -> None:
        self.serve_damaged(form)
        blocks = [CONTENT[:BLOCK], CONTENT[BLOCK : 2 * BLOCK]]
        self.assertFalse(blocks == self.first(0, 1), 'it is good')
        before = self.source.fetched
        (piece,) = self.again(1)
        self.assertIn('in store two', piece.origin)
        # Twice, as nobody tells which store has been taken.
        fetched = self.others.fetched - before
        self.assertLessEqual(fetched, 2 * (BLOCK + TABLES))
        self.assertNotIn(None, self.server.asked)

    def test_so_does_all_of_it_where_there_are_no_parts(self) -> None:
        self.patch(streams, '_RESERVE', 0)
        for form in ('raw', 'qcow2'):
            with open(self.convert(form), 'rb') as file:
                digest = hashlib.sha512(file.read()).hexdigest()
            self.serve_damaged(
                form, rangeless=('one', 'two'), os_hash_value=digest
            )
            error = self.assertRaises(sources.Unavailable, self.first, 1)
            self.assertEqual(State.OTHER_BYTES, error.state)
            (piece,) = self.again(1)
            self.assertIn('in store two', piece.origin)

    def test_tables_that_are_damaged_in_one_store_are_not_in_another(
        self,
    ) -> None:
        self.serve_damaged('qcow2', damaged=b'QFI\xfb' + bytes(BLOCK))
        error = self.assertRaises(sources.Unavailable, self.first, 1)
        self.assertIn(error.state, (State.HOSTILE, State.OTHER_BYTES))
        (piece,) = self.again(1)
        self.assertIn('in store two', piece.origin)

    def test_all_of_it_is_read_last(self) -> None:
        self.serve_damaged('raw')
        self.first(1)
        self.server.stored.rangeless = ('one',)
        self.assertEqual(1, len(self.again(1)))
        self.assertNotIn(None, self.server.asked)

    def test_where_there_is_but_one_store_nothing_is_asked_again(
        self,
    ) -> None:
        self.serve_damaged('raw')
        self.server.stored.stores = 'one'
        self.first(1)
        before = len(self.server.requests)
        self.assertEqual([], self.again(1))
        self.assertEqual(before, len(self.server.requests))

    def test_who_may_not_choose_a_store_has_what_he_was_given(self) -> None:
        self.patch(streams, '_RESERVE', 0)
        self.serve_damaged('raw')

        def fault(it: Handler) -> None:
            if 'prefer' in it.path:
                it.reply(403)
                return
            self.server.stored.fault = None
            Handler._data(it, '')
            self.server.stored.fault = fault

        self.server.stored.fault = fault
        self.first(1)
        self.assertEqual([], self.again(1))
        # Nor is that why there are no parts to be had.
        with open(self.server.stored.path, 'rb') as file:
            digest = hashlib.sha512(file.read()).hexdigest()
        self.server.stored.paths.clear()
        self.server.stored.rangeless = ('one',)
        self.server.stored.os_hash_value = digest
        self.source = image_service.ImageService(
            self.server.client, self.temporary
        )
        self.assert_right(1)
        self.assertIn(None, self.server.asked)

    @ddt.data(401, 403, 404, 500)
    def test_nor_where_it_is_no_matter_of_the_store(self, code: int) -> None:
        self.serve_damaged('raw')
        self.server.stored.fault = lambda it: it.reply(code)
        self.assertRaises(sources.Unavailable, self.first, 1)
        before = len(self.server.requests)
        self.assertEqual([], self.again(1))
        self.assertEqual(before, len(self.server.requests))

    def test_nor_where_nothing_was_asked_before(self) -> None:
        self.serve_damaged('raw')
        self.assertEqual([], self.again(1))
        self.assertEqual([], self.server.requests)


@ddt.ddt
class WholeTest(ImageServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(streams, '_RESERVE', 0)

    def test_without_a_person_an_image_is_read_within_bounds(self) -> None:
        self.rangeless(self.raw)
        sources_of = automatic.asking(self.server.client)
        settings = Settings(self.temporary)
        os.makedirs(layouts.Layout.of(settings).temporary)
        *_here, source, _others = sources_of(settings)
        assert isinstance(source, image_service.ImageService)
        self.source = source
        self.assert_right(1)
        self.assertEqual(1, self.server.asked.count(None))

    @ddt.data('raw', 'qcow2')
    def test_one_that_is_larger_than_the_bounds_is_not_begun(
        self, disk_format: str
    ) -> None:
        self.rangeless(self.convert(disk_format), disk_format=disk_format)
        self.source = image_service.ImageService(
            self.server.client, self.temporary, streams.Bounds(BLOCK)
        )
        said = self.assert_refused(State.TOO_LARGE)
        self.assertIn('nova-imagecache repair', said)
        self.assertNotIn(None, self.server.asked)

    def test_one_that_takes_longer_than_the_bounds_is_given_up(self) -> None:
        self.rangeless(self.raw)
        self.source = image_service.ImageService(
            self.server.client, self.temporary, streams.Bounds(seconds=-1)
        )
        self.assertIn('too slowly', self.assert_refused(State.TIMEOUT))
        self.assert_nothing_left()

    def rangeless(self, path: str, **values: Any) -> None:
        self.serve(path, stores='one', rangeless=('one',), **values)

    def test_a_raw_image_is_read_once_for_all_blocks(self) -> None:
        self.rangeless(self.raw)
        self.assert_right(0, 2)
        self.assertEqual(1, self.server.asked.count(None))
        self.assert_nothing_left()

    @ddt.data('qcow2', 'vmdk', 'vdi', 'vhdx')
    def test_a_converted_image_is_decoded_here(self, disk_format: str) -> None:
        self.rangeless(self.convert(disk_format), disk_format=disk_format)
        self.assert_right(0, 1, 2, 3)
        self.assertEqual(1, self.server.asked.count(None))
        self.assert_nothing_left()

    def test_another_store_that_has_it_is_asked_for_the_part(self) -> None:
        self.serve(self.raw, stores='rbd,fs', rangeless=('rbd',))
        self.assert_right(0, 1)
        self.assertNotIn(None, self.server.asked)
        self.assertIn('prefer=fs', self.server.requests[-1][0])

    def test_a_server_that_sends_all_of_it_is_not_listened_to(self) -> None:
        self.serve(self.raw, fault=lambda it: it.send_body(200, CONTENT))
        self.source = image_service.ImageService(
            self.server.client, self.temporary, whole=None
        )
        self.assert_refused(State.NO_RANGES)
        self.assertLess(self.source.fetched, RECORD)

    @ddt.data('raw', 'qcow2')
    def test_nothing_is_given_of_an_image_with_another_digest(
        self, disk_format: str
    ) -> None:
        path = self.convert(disk_format)
        self.rangeless(path, disk_format=disk_format, os_hash_value='ab' * 64)
        wanted = [sources.Wanted(0, BLOCK)]
        pieces = self.source.read(self.base, wanted)
        error = self.assertRaises(sources.Unavailable, next, pieces)
        self.assertEqual(State.OTHER_BYTES, error.state)

    def test_what_does_not_fit_is_not_begun(self) -> None:
        self.rangeless(self.convert('qcow2'), disk_format='qcow2')
        self.patch(streams, '_RESERVE', 2**60)
        self.assertIn('MiB', self.assert_refused(State.NO_SPACE))
        self.assertNotIn(None, self.server.asked)

    def test_one_that_ends_half_way_gives_nothing(self) -> None:
        self.rangeless(self.raw)

        def fault(it: Handler) -> None:
            it.reply(400) if 'Range' in it.headers else it.cut_off()

        self.server.stored.fault = fault
        self.assert_refused(State.TRUNCATED)


class StopTest(ImageServiceTestCase):
    """Whoever waits says so all the time, and can end it."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(streams, '_RESERVE', 0)
        self.asked = threading.Event()
        self.over = threading.Event()
        self.addCleanup(self.over.set)

    def watched(self, path: str, **values: Any) -> None:
        """Have what waits be stopped once the service is at it."""
        self.serve(path, stores='one', rangeless=('one',), **values)
        self.pulses = 0
        stop = threading.Event()

        def pulse() -> None:
            self.pulses += 1
            if self.asked.is_set():
                stop.set()

        watch = sources.Watch(stop, pulse)
        self.source = image_service.ImageService(
            self.server.client, self.temporary, watch=watch
        )

    def hang(self, it: Handler) -> None:
        """Give no parts, and stop in the middle of all of it."""
        if 'Range' in it.headers:
            it.reply(400)
            return
        it.send_response(200)
        size = os.path.getsize(self.server.stored.path)
        it.send_header('Content-Length', str(size))
        it.end_headers()
        it.wfile.write(CONTENT[: 64 * base.KIB])
        it.wfile.flush()
        self.asked.set()
        self.over.wait(60)

    def assert_stopped(self) -> None:
        began = time.monotonic()
        self.assert_refused(State.STOPPED)
        self.assertLess(time.monotonic() - began, 10)
        self.assertTrue(self.pulses)
        self.assert_nothing_left()

    def test_a_stream_that_hangs_ends_when_it_is_told_to(self) -> None:
        self.watched(self.raw, fault=self.hang)
        self.assert_stopped()

    def test_so_does_one_that_is_to_be_converted(self) -> None:
        path = self.convert('qcow2')
        self.watched(path, disk_format='qcow2', fault=self.hang)
        self.assert_stopped()

    def test_so_does_one_that_was_never_answered(self) -> None:
        def fault(it: Handler) -> None:
            self.asked.set()
            self.over.wait(60)

        self.watched(self.raw, fault=fault)
        self.assert_stopped()

    def test_so_does_the_search_for_the_service(self) -> None:
        self.watched(self.raw)

        def get_client() -> Any:
            self.asked.set()
            self.over.wait(60)

        self.source._client = get_client
        self.assert_stopped()

    def test_so_does_qemu_img(self) -> None:
        path = self.convert('qcow2')
        self.watched(path, disk_format='qcow2')
        program = self.put(
            'other',
            f'#!/bin/sh\necho >{self.temporary}/raw; sleep 99\n'.encode(),
        )
        os.chmod(program, 0o755)
        directory = self.useFixture(fixtures.TempDir()).path
        os.symlink(program, os.path.join(directory, 'qemu-img'))
        self.useFixture(
            fixtures.EnvironmentVariable(
                'PATH', directory + os.pathsep + os.environ['PATH']
            )
        )
        real = qemu._run

        def run(*command: str, **values: Any) -> None:
            self.asked.set()
            real(*command, **values)

        self.patch(qemu, '_run', run)
        self.assert_stopped()

    def test_the_connection_goes_with_who_has_used_it(self) -> None:
        """The server sees that nobody listens any more."""
        gone = threading.Event()

        def fault(it: Handler) -> None:
            if 'Range' in it.headers:
                it.reply(400)
                return
            it.send_response(200)
            it.send_header('Content-Length', str(len(CONTENT)))
            it.end_headers()
            self.asked.set()
            it.connection.settimeout(20)
            if it.connection.recv(1) == b'':
                gone.set()

        self.watched(self.raw, fault=fault)
        self.assert_stopped()
        self.assertTrue(gone.wait(20))


def drip(it: Handler) -> None:
    """Send a byte at a time, slowly and without an end."""
    length = len(CONTENT)
    match = it.headers.get('Range', 'bytes=0-0').removeprefix('bytes=')
    first, last = map(int, match.split('-'))
    it.send_response(206)
    it.send_header('Content-Length', str(last - first + 1))
    it.send_header('Content-Range', f'bytes {first}-{last}/{length}')
    it.end_headers()
    with contextlib.suppress(OSError):
        for _byte in range(200):
            it.wfile.write(b'x')
            time.sleep(0.05)


class OldClientTest(ImageServiceTestCase):
    """urllib3 before 2.1, which reads whole chunks alone."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(streams, '_RESERVE', 0)
        hide = property(lambda it: (_ for _ in ()).throw(AttributeError))
        self.patch(urllib3.HTTPResponse, 'read1', hide)

    def test_parts_and_streams_come_all_the_same(self) -> None:
        self.serve(self.raw)
        self.assertFalse(hasattr(urllib3.HTTPResponse(b''), 'read1'))
        self.assert_right(1)
        self.serve(self.raw, stores='one', rangeless=('one',))
        self.assert_right(0, 2)

    def test_one_that_is_cut_off_is_truncated(self) -> None:
        self.serve(self.raw, fault=Handler.cut_off)
        self.assert_refused(State.TRUNCATED)

    def test_a_server_that_drips_is_given_up(self) -> None:
        self.patch(image_api, '_PATIENCE_SECONDS', 1)
        self.patch(image_api, '_LEAST_RATE', 2**40)
        self.serve(self.raw, fault=drip)
        self.assert_refused(State.TIMEOUT)


@ddt.ddt
class FullDiskTest(ImageServiceTestCase, mounts.MountingTestCase):
    @ddt.data(0, 3 * base.MIB)
    def test_a_full_disk_is_no_fault_of_the_image(self, taken: int) -> None:
        if os.geteuid() != 0:
            self.skipTest('only root can mount file systems')
        point = os.path.join(self.temporary, 'small')
        os.mkdir(point)
        processes.run('mount', '-t', 'tmpfs', '-o', 'size=6m', 'tmpfs', point)
        self.addCleanup(processes.run, 'umount', point)
        self.serve(self.convert('qcow2'), disk_format='qcow2')
        self.source = image_service.ImageService(self.server.client, point)
        with open(os.path.join(point, 'other'), 'wb') as file:
            file.write(bytes(taken))
        self.assert_refused(State.NO_SPACE)
        self.assertEqual(['other'], os.listdir(point))


def reply(code: int, **headers: Any) -> Callable[[Handler], None]:
    return lambda it: it.reply(code, b'', **headers)


@ddt.ddt
class FailureTest(ImageServiceTestCase):
    @ddt.data(
        (401, State.UNAUTHORIZED),
        (403, State.FORBIDDEN),
        (404, State.NOT_FOUND),
        (204, State.NOT_FOUND),
        (500, State.UNREACHABLE),
        (503, State.UNREACHABLE),
        (429, State.UNREACHABLE),
        (504, State.TIMEOUT),
        (302, State.FAILED),
        (418, State.FAILED),
    )
    @ddt.unpack
    def test_each_answer_is_a_state_after_one_request(
        self, code: int, state: State
    ) -> None:
        self.serve(self.raw, fault=reply(code, Location='http://elsewhere/'))
        self.assertIn(str(code), self.assert_refused(state))
        # keystoneauth1 asks for another token once.
        self.assertLessEqual(len(self.server.asked), 1 + (code == 401))

    def test_when_to_ask_again_is_said(self) -> None:
        self.serve(self.raw, fault=reply(503, Retry_After='120'))
        self.assertIn('in 120 s', self.assert_refused(State.UNREACHABLE))

    @ddt.data((404, State.NOT_FOUND), (403, State.FORBIDDEN))
    @ddt.unpack
    def test_an_image_that_may_not_be_seen_says_who_must_be_let(
        self, code: int, state: State
    ) -> None:
        self.serve(self.raw, record_code=code)
        self.assertIn('[service_user]', self.assert_refused(state))
        self.assertEqual([], self.server.asked)

    def test_a_deactivated_image_is_had_by_who_may(self) -> None:
        self.serve(self.raw, status='deactivated')
        self.assert_right(0)
        self.server.stored.fault = reply(403)
        self.assert_refused(State.DEACTIVATED)

    @ddt.data('killed', 'queued', 'saving', 'deleted', 'pending_delete')
    def test_an_image_without_data_is_not_asked_for_it(
        self, status: str
    ) -> None:
        self.serve(self.raw, status=status)
        self.assertIn(status, self.assert_refused(State.NOT_FOUND))
        self.assertEqual([], self.server.asked)

    def test_one_that_is_cut_off_is_truncated(self) -> None:
        self.serve(self.raw, fault=Handler.cut_off)
        self.assert_refused(State.TRUNCATED)

    @ddt.data(-1, 1)
    def test_another_length_is_refused(self, more: int) -> None:
        self.serve(
            self.raw,
            fault=lambda it: it.send_body(
                206,
                CONTENT[: BLOCK + more],
                Content_Range=f'bytes 0-{BLOCK - 1}/{len(CONTENT)}',
            ),
        )
        self.assert_refused(State.TRUNCATED)

    def test_another_part_is_refused(self) -> None:
        self.serve(
            self.raw,
            fault=lambda it: it.send_body(
                206,
                CONTENT[:BLOCK],
                Content_Range=f'bytes 512-{BLOCK + 511}/{len(CONTENT)}',
            ),
        )
        self.assert_refused(State.TRUNCATED)

    def test_an_image_of_another_size_is_not_asked_for_data(self) -> None:
        self.serve(self.put('other', CONTENT + b'x'))
        self.assert_refused(State.OTHER_BYTES)
        self.assertEqual([], self.server.asked)

    def test_a_server_that_says_nothing_is_given_up(self) -> None:
        self.patch(image_api, '_TIMEOUT_SECONDS', (0.2, 0.2))
        gone = self.useFixture(Silence())
        self.serve(self.raw, fault=lambda it: gone.wait())
        self.assert_refused(State.TIMEOUT)

    def test_a_server_that_drips_is_given_up(self) -> None:
        self.patch(image_api, '_PATIENCE_SECONDS', -BLOCK)
        self.serve(self.raw)
        self.assert_refused(State.TIMEOUT)

    def test_a_server_that_is_down_is_unreachable(self) -> None:
        self.serve(self.raw)
        self.server.url = f'http://127.0.0.1:{image_server.unused_port()}'
        self.assert_refused(State.UNREACHABLE)

    def test_what_is_no_image_service_is_a_failure(self) -> None:
        self.serve(self.raw)
        self.patch(
            Handler, '_record', lambda it: it.reply(200, b'<html>', Server='x')
        )
        self.assert_refused(State.FAILED)

    def test_a_record_without_an_end_is_not_read_to_it(self) -> None:
        self.serve(self.raw)
        self.patch(
            Handler, '_record', lambda it: it.send_body(200, b' ' * 2**22)
        )
        self.assert_refused(State.FAILED)
        self.assertLessEqual(self.source.fetched, 2**20)

    def test_a_file_without_an_image_asks_nobody(self) -> None:
        self.serve(self.raw)
        for image in (None, '11111111-2222-3333-4444-555555555555'):
            self.base = sources.Base(
                self.base.name, self.raw, len(CONTENT), image
            )
            self.assert_refused(State.UNKNOWN_IMAGE)
        self.assertEqual([], self.server.requests)


class Silence(fixtures.Fixture):
    """Says nothing, until the test is over."""

    def _setUp(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.addCleanup(self._theirs.close)
        self.addCleanup(self._ours.close)

    def wait(self) -> None:
        self._theirs.settimeout(10)
        try:
            self._theirs.recv(1)
        except OSError:
            return


@ddt.ddt
class HostileTest(ImageServiceTestCase):
    @ddt.data(
        ('a backing file', 8, struct.pack('>QI', 1024, 4)),
        ('version 1', 4, struct.pack('>I', 1)),
        ('clusters of 4 GiB', 20, struct.pack('>I', 32)),
        ('encryption', 32, struct.pack('>I', 1)),
        ('a huge L1 table', 36, struct.pack('>I', 2**31)),
        ('no L1 table', 36, struct.pack('>I', 0)),
        ('an L1 table elsewhere', 40, struct.pack('>Q', 2**50)),
        ('an L1 table in the header', 40, struct.pack('>Q', 0)),
        ('an external data file', 72, struct.pack('>Q', 4)),
        ('an unknown feature', 72, struct.pack('>Q', 2**40)),
        ('an L2 table elsewhere', 3 * 65536, struct.pack('>Q', 2**50)),
        ('an L2 table between', 3 * 65536, struct.pack('>Q', 65536 + 512)),
        ('a cluster elsewhere', 4 * 65536, struct.pack('>Q', 2**50)),
        ('a cluster in the header', 4 * 65536, struct.pack('>Q', 1 << 62)),
        (
            'a compressed cluster elsewhere',
            4 * 65536,
            struct.pack('>Q', 1 << 62 | 2**40),
        ),
    )
    @ddt.unpack
    def test_no_such_image_is_decoded(
        self, _what: str, at: int, value: bytes
    ) -> None:
        path = self.convert('qcow2')
        with open(path, 'r+b') as file:
            file.seek(at)
            file.write(value)
        self.serve(path, disk_format='qcow2')
        self.assert_refused(State.HOSTILE)
        self.assertLessEqual(self.source.fetched, HEAD + 4 * base.KIB)
        self.assert_nothing_left()

    def test_garbage_in_a_compressed_cluster_is_told(self) -> None:
        path = self.convert('qcow2', '-c')
        with open(path, 'r+b') as file:
            # The third block is text, in small clusters.
            data = file.read()
            (entry,) = struct.unpack_from('>Q', data, 4 * 65536 + 8 * 128)
            file.seek((entry & (2**54 - 1)) + 8)
            file.write(b'\xff' * 100)
        self.serve(path, disk_format='qcow2')
        self.assert_refused(State.HOSTILE, 2)
        self.assert_nothing_left()

    def test_what_is_both_qcow2_and_an_iso_is_not_decoded(self) -> None:
        path = self.convert('qcow2')
        with open(path, 'r+b') as file:
            file.seek(32768)
            file.write(b'\1CD001\1')
        self.serve(path, disk_format='qcow2')
        self.assert_refused(State.HOSTILE)

    def test_a_wrong_name_of_the_format_is_not_believed(self) -> None:
        self.serve(self.convert('vdi'), disk_format='qcow2')
        self.assert_refused(State.HOSTILE)


@ddt.ddt
class ClientTest(ImageServiceTestCase):
    def keystone(self, **more: str) -> str:
        glance = ''.join(f'{name} = {value}\n' for name, value in more.items())
        return (
            '[service_user]\nauth_type = password\nusername = nova\n'
            f'auth_url = {self.server.url}/v3\npassword = secret\n'
            'user_domain_id = default\nproject_domain_id = default\n'
            f'project_name = service\n[glance]\n{glance}'
        )

    def use(self, text: str) -> None:
        self.source = image_service.ImageService(
            clients.from_options(image_server.make_conf(text)), self.temporary
        )

    def test_a_keystone_that_says_nothing_is_not_waited_for_for_ever(
        self,
    ) -> None:
        self.serve(self.raw)
        for more, seconds in (('', 30), ('timeout = 7\n', 7)):
            text = self.keystone().replace('[glance]', f'{more}[glance]')
            client: Any = clients.from_options(image_server.make_conf(text))()
            self.assertEqual(seconds, client.session.timeout)

    def test_the_service_user_is_authenticated(self) -> None:
        self.serve(self.raw)
        self.use(self.keystone(region_name='one'))
        self.assert_right(0)
        user = self.server.logins[0]['auth']['identity']['password']['user']
        self.assertEqual('nova', user['name'])
        self.assertEqual('secret', self.server.token)

    def test_what_an_administrator_does_not_see_is_gone(self) -> None:
        self.serve(self.raw, record_code=404)
        self.use(self.keystone())
        self.assertIn('the last copy', self.assert_refused(State.GONE))

    def test_what_others_do_not_see_may_be_there(self) -> None:
        """A user with the role service sees no private images."""
        self.serve(self.raw, record_code=404)
        for roles in ([], ['service'], ['service', 'reader', 'member']):
            self.server.roles = roles
            self.use(self.keystone())
            self.assertIn('role', self.assert_refused(State.NOT_FOUND))

    def test_who_sees_private_images_of_others_would_see_it(self) -> None:
        """As with a role that is in context_is_admin of Glance."""
        self.serve(self.raw, record_code=404)
        self.server.roles = ['service', 'image_reader']
        for visibility, owner, state in (
            ('private', 'other', State.GONE),
            ('private', 'p', State.NOT_FOUND),
            ('private', '', State.NOT_FOUND),
            ('public', 'other', State.NOT_FOUND),
            ('shared', 'other', State.NOT_FOUND),
        ):
            self.server.listed = [{'visibility': visibility, 'owner': owner}]
            self.use(self.keystone())
            self.assert_refused(state)
        for nonsense in ({}, {'visibility': 'private'}, 'private', None):
            self.server.listed = [nonsense]  # type: ignore[list-item]
            self.use(self.keystone())
            self.assert_refused(State.NOT_FOUND)
        self.assertIn(
            '/v2/images?visibility=private&limit=100',
            [path for path, _range in self.server.requests],
        )

    def test_what_lists_no_images_does_not_know_what_is_gone(self) -> None:
        """As what is in front of the image service, or another one."""
        self.serve(self.raw, record_code=404)
        self.server.lists = False
        self.use(self.keystone())
        self.assert_refused(State.NOT_FOUND)

    def test_the_endpoint_is_the_one_of_api_servers(self) -> None:
        self.serve(self.raw)
        self.use(
            self.keystone(
                valid_interfaces='public', api_servers=self.server.url
            )
        )
        self.assert_right(0)

    def test_a_cloud_of_clouds_yaml_counts_more_than_nova_conf(self) -> None:
        self.serve(self.raw)
        path = self.put(
            'other',
            json.dumps(
                {
                    'clouds': {
                        'mine': {
                            'auth': {
                                'auth_url': f'{self.server.url}/v3',
                                'username': 'person',
                                'password': 'of theirs',
                                'project_name': 'images',
                                'user_domain_id': 'default',
                                'project_domain_id': 'default',
                            },
                            'interface': 'internal',
                            'region_name': 'one',
                        }
                    }
                }
            ).encode(),
        )
        for name, value in (
            ('OS_CLIENT_CONFIG_FILE', path),
            ('OS_CLOUD', 'mine'),
        ):
            self.useFixture(fixtures.EnvironmentVariable(name, value))
        nowhere = f'http://127.0.0.1:{image_server.unused_port()}'
        self.use(self.keystone(endpoint_override=nowhere))
        self.assert_right(0)
        user = self.server.logins[0]['auth']['identity']['password']['user']
        self.assertEqual('person', user['name'])

    def test_a_wrong_password_is_said(self) -> None:
        self.serve(self.raw)
        self.server.login_code = 401
        self.use(self.keystone())
        self.assert_refused(State.UNAUTHORIZED)

    def test_without_a_user_the_way_out_is_said(self) -> None:
        self.use('[DEFAULT]\n')
        self.assertIn('OS_CLOUD', self.assert_refused(State.NOT_CONFIGURED))

    def test_without_the_client_installed_what_to_install_is_said(
        self,
    ) -> None:
        self.patch_modules('keystoneauth1', 'openstack')
        self.use('[DEFAULT]\n')
        self.assertIn(
            'nova-imagecache[image-service]',
            self.assert_refused(State.NOT_CONFIGURED),
        )

    @ddt.data('auth_type = nonsense', 'auth_type = password')
    def test_nonsense_in_the_options_is_said(self, line: str) -> None:
        self.use(f'[service_user]\n{line}\n')
        self.assert_refused(State.NOT_CONFIGURED)

    def patch_modules(self, *gone: str) -> None:
        import sys

        for name in gone:
            real = sys.modules.get(name)
            sys.modules[name] = None  # type: ignore[assignment]
            self.addCleanup(
                sys.modules.__setitem__, name, real
            ) if real else self.addCleanup(sys.modules.pop, name)


class DigestTest(base.TestCase):
    def test_md5_is_no_evidence(self) -> None:
        image = images.Image('x', 'active', 'raw', 1, 'md5', 'ab')
        self.assertIsNone(images.hasher(image))

    def test_what_glance_uses_is(self) -> None:
        image = images.Image('x', 'active', 'raw', 1, 'sha512', 'ab')
        self.assertEqual(
            hashlib.sha512(b'').digest(), images.hasher(image).digest()
        )
