# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
import contextlib
import os
import struct
import subprocess

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.witnesses import disk_header
from tests.support import nodes


class HeaderTestCase(nodes.FileTestCase):
    def path(self, name: str) -> str:
        return os.path.join(self.temporary, name)

    def read(self, path: str) -> disk_header.DiskHeader:
        fd = os.open(path, os.O_RDONLY)
        try:
            return disk_header.read_header(fd)
        finally:
            os.close(fd)

    def write(self, data: bytes) -> str:
        path = self.path('written')
        with open(path, 'wb') as file:
            file.write(data)
        return path

    def qcow2(self, name: bytes, offset: int = 104, length: int = -1) -> str:
        """Write a qcow2 header by hand, as a hostile guest may."""
        length = len(name) if length < 0 else length
        header = struct.pack('>4sIQI', b'QFI\xfb', 2, offset, length)
        return self.write(header.ljust(104, b'\0') + name)


@ddt.ddt
class AgreementTest(HeaderTestCase):
    """On real images, qemu-img sees the same."""

    def assert_agreement(self, path: str) -> None:
        for image in nodes.backing_chain(path):
            header = self.read(image['filename'])
            self.assertEqual(
                image.get('backing-filename'), header.backing_file
            )
            self.assertEqual(
                image.get('backing-filename-format'), header.backing_format
            )
            specific = image.get('format-specific', {}).get('data', {})
            self.assertEqual(specific.get('data-file'), header.data_file)
            if header.format != 'raw':
                self.assertEqual(image['format'], header.format)

    def make_base(self, form: str = 'raw') -> str:
        path = self.path(f'base.{form}')
        nodes.qemu_img('create', '-f', form, path, '4M')
        return path

    @ddt.data(
        'compat=0.10',
        'compat=1.1',
        'compat=1.1,extended_l2=on',
        'compat=1.1,lazy_refcounts=on',
        'compat=1.1,cluster_size=512',
        'compat=1.1,cluster_size=2M',
        'compat=1.1,compression_type=zlib',
    )
    def test_a_qcow2_chain(self, options: str) -> None:
        middle = self.path('middle')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-o', options,
            '-b', self.make_base(), '-F', 'raw', middle,
        )  # fmt: skip
        top = self.path('top')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-o', options,
            '-b', 'middle', '-F', 'qcow2', top,
        )  # fmt: skip
        self.assertEqual('middle', self.read(top).backing_file)
        self.assertEqual(3, len(nodes.backing_chain(top)))
        self.assert_agreement(top)

    @ddt.data('compat=0.10', 'compat=1.1')
    def test_a_qcow2_without_a_backing_format(self, options: str) -> None:
        top = self.path('top')
        middle = self.path('middle')
        nodes.qemu_img('create', '-f', 'qcow2', middle, '4M')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-o', options,
            '-b', middle, '-F', 'qcow2', top,
        )  # fmt: skip
        # qemu-img 6.1 and later do not make such disks, but old ones are here
        # for years: hide the extension that holds the format.
        with open(top, 'r+b') as file:
            data = file.read(4096)
            offset = data.index(struct.pack('>I', 0xE2792ACA))
            file.seek(offset)
            file.write(b'\x01\x02\x03\x04')
        header = self.read(top)
        self.assertEqual(middle, header.backing_file)
        self.assertIsNone(header.backing_format)
        self.assert_agreement(top)

    @ddt.data('raw', 'qcow2', 'qcow', 'qed', 'vmdk', 'vdi', 'vhdx', 'vpc')
    def test_an_image_without_a_backing_file(self, form: str) -> None:
        path = self.make_base(form)
        self.assertIsNone(self.read(path).backing_file)
        self.assert_agreement(path)

    @ddt.data('qcow', 'qed', 'vmdk')
    def test_another_format_with_a_backing_file(self, form: str) -> None:
        backing = self.make_base('vmdk' if form == 'vmdk' else 'raw')
        top = self.path('top')
        nodes.qemu_img(
            'create', '-f', form, '-b', backing,
            '-F', 'vmdk' if form == 'vmdk' else 'raw', top,
        )  # fmt: skip
        header = self.read(top)
        self.assertEqual(backing, header.backing_file)
        self.assertEqual(form, header.format)

    def test_internal_snapshots(self) -> None:
        top = self.path('top')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', self.make_base(), '-F', 'raw', top
        )
        nodes.qemu_img('snapshot', '-c', 'before', top)
        self.assert_agreement(top)

    def test_an_external_data_file(self) -> None:
        top = self.path('top')
        nodes.qemu_img(
            'create', '-f', 'qcow2',
            '-o', f'data_file={self.path("data")}', top, '4M',
        )  # fmt: skip
        self.assertEqual(self.path('data'), self.read(top).data_file)
        self.assert_agreement(top)

    @ddt.data('aes', 'luks')
    def test_an_encrypted_image(self, form: str) -> None:
        top = self.path('top')
        options = f'encrypt.format={form},encrypt.key-secret=s'
        for _attempt in range(20):
            # qemu-img times the key derivation of LUKS, and fails with
            # "Unable to get accurate CPU usage" when it shares the CPU.
            with contextlib.suppress(subprocess.CalledProcessError):
                nodes.qemu_img(
                    'create', '-f', 'qcow2', '--object',
                    'secret,id=s,data=abc', '-o', options,
                    '-b', self.make_base(), '-F', 'raw', top,
                )  # fmt: skip
                break
        self.assertEqual(self.path('base.raw'), self.read(top).backing_file)
        self.assert_agreement(top)

    def test_a_name_with_a_nul_in_it_ends_there(self) -> None:
        top = self.path('top')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', self.make_base(), '-F', 'raw', top
        )
        with open(top, 'r+b') as file:
            _magic, _version, offset, length = struct.unpack(
                '>4sIQI', file.read(20)
            )
            file.seek(16)
            file.write(struct.pack('>I', length + 5))
            file.seek(offset + length)
            file.write(b'\0more')
        self.assertEqual(self.path('base.raw'), self.read(top).backing_file)
        self.assert_agreement(top)

    def test_an_image_whose_end_is_cut_off(self) -> None:
        top = self.path('top')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', self.make_base(), '-F', 'raw', top
        )
        os.truncate(top, 66000)
        self.assert_agreement(top)

    def test_an_empty_file(self) -> None:
        path = self.write(b'')
        self.assertEqual(disk_header.DiskHeader(), self.read(path))
        self.assert_agreement(path)

    def test_random_bytes(self) -> None:
        path = self.write(os.urandom(8192))
        self.assertEqual(disk_header.DiskHeader(), self.read(path))

    @ddt.data('/etc/shadow', 'a' * 1023, '../up', 'json:{"file": "x"}')
    def test_a_name_that_nobody_should_open(self, name: str) -> None:
        top = self.path('top')
        nodes.qemu_img('create', '-f', 'qcow2', top, '4M')
        nodes.qemu_img('rebase', '-u', '-b', name, '-F', 'raw', top)
        self.assertEqual(name, self.read(top).backing_file)


@ddt.ddt
class MalformedTest(HeaderTestCase):
    @ddt.data(
        lambda self: self.qcow2(b'name', length=1024),
        lambda self: self.qcow2(b'name', offset=2**63 + 5),
        lambda self: self.qcow2(b'name', offset=2**40),
        lambda self: self.qcow2(b'name', length=100),
        lambda self: self.write(b'QFI\xfb'),
        lambda self: self.write(b'QFI\xfb\0\0\0\x09' + bytes(1000)),
        lambda self: self.write(b'QFI\xfb\0\0\0\x03' + bytes(20)),
        lambda self: self.write(b'QED\0' + b'\xff' * 60),
        lambda self: self.write(b'QED\0'),
        lambda self: self.write(b'KDMV' + b'\xff' * 600),
        lambda self: self.write(b'KDMV'),
    )
    def test_a_header_that_contradicts_itself_says_so(
        self, make: Callable[[HeaderTestCase], str]
    ) -> None:
        self.assertRaises(disk_header.MalformedHeader, self.read, make(self))

    def test_endless_extensions_end(self) -> None:
        data = struct.pack('>4sIQI', b'QFI\xfb', 2, 0, 0).ljust(72, b'\0')
        path = self.write(data + struct.pack('>II', 7, 0) * 100000)
        self.assertEqual('qcow2', self.read(path).format)

    @ddt.data(
        b'QFI\xfb' + bytes(10),
        b'QFI\xfb\0\0\0\x01' + bytes(39),
        b'QFI\xfb\0\0\0\x02' + bytes(63),
        b'QFI\xfb\0\0\0\x03' + bytes(95),
        b'QED\0' + bytes(59),
        b'KDMV' + bytes(74),
    )
    def test_a_copy_that_was_broken_off_is_told_from_damage(
        self, data: bytes
    ) -> None:
        path = self.write(data)
        self.assertRaises(disk_header.TruncatedHeader, self.read, path)
        path = self.write(data + b'\0')
        if len(data) > 14:
            self.assertNotEqual('raw', self.read(path).format)

    def test_damage_is_no_copy_that_was_broken_off(self) -> None:
        path = self.qcow2(b'name', length=1024)
        error = self.assertRaises(disk_header.MalformedHeader, self.read, path)
        self.assertNotIsInstance(error, disk_header.TruncatedHeader)

    @hypothesis.given(
        st.sampled_from([b'QFI\xfb', b'QED\0', b'KDMV', b'# Disk Desc', b'']),
        st.binary(max_size=600),
    )
    def test_no_bytes_do_worse_than_malformed(
        self, magic: bytes, rest: bytes
    ) -> None:
        path = self.write(magic + rest)
        try:
            header = self.read(path)
        except disk_header.MalformedHeader:
            return
        self.assertLessEqual(len(header.backing_file or ''), 20 * 512)


class ReadsTest(HeaderTestCase):
    """Each read of a disk may take a process of root's."""

    def reads(self, path: str, costly: bool = True) -> list[int]:
        """Read a header; give how much was read each time."""
        lengths = []
        with open(path, 'rb') as file:

            def pread(length: int, offset: int) -> bytes:
                lengths.append(length)
                return os.pread(file.fileno(), length, offset)

            size = os.path.getsize(path)
            with contextlib.suppress(disk_header.MalformedHeader):
                self.header = disk_header.read_header_from(pread, size, costly)
        return lengths

    def extensions(self, end: int, name: bytes, offset: int) -> str:
        """Forge a header whose first extensions say nothing, to that end."""
        head = struct.pack('>4sIQI', b'QFI\xfb', 2, offset, len(name))
        data = head.ljust(72, b'\0')
        data += struct.pack('>II', 7, 0) * ((end - 72) // 8)
        for kind in (0xE2792ACA, 0x44415441):
            data += struct.pack('>II', kind, len(name)) + name
            data += bytes(-len(name) % 8)
        return self.write(data.ljust(offset, b'\0') + name)

    def test_a_real_disk_takes_one_read(self) -> None:
        for options in ('cluster_size=64k', 'cluster_size=2M'):
            nodes.qemu_img(
                'create', '-u', '-f', 'qcow2', '-o', options,
                '-b', 'name', '-F', 'raw', self.path('top'), '1M',
            )  # fmt: skip
            self.assertEqual(1, len(self.reads(self.path('top'))))
            self.assertEqual('name', self.header.backing_file)
            self.assertEqual('raw', self.header.backing_format)

    def test_of_a_real_disk_a_page_is_read(self) -> None:
        for options in ('cluster_size=64k', 'cluster_size=2M'):
            nodes.qemu_img(
                'create', '-u', '-f', 'qcow2', '-o', options,
                '-b', 'name', '-F', 'raw', self.path('top'), '1M',
            )  # fmt: skip
            self.assertEqual([4096], self.reads(self.path('top'), False))
            self.assertEqual('name', self.header.backing_file)
            self.assertEqual('raw', self.header.backing_format)
        path = self.write(bytes(2**20))
        self.assertEqual([4096], self.reads(path, False))

    def test_what_is_behind_the_first_page_is_read_too(self) -> None:
        for end in (80, 4096 - 24, 4088, 4096, 40000, 64 * 1024 - 8):
            for offset in (2**16, 2**17):
                path = self.extensions(end, b'n' * 1023, offset)
                reads = self.reads(path, False)
                self.assertLessEqual(len(reads), 3)
                self.assertLessEqual(max(reads), 65 * 1024)
                self.assertEqual('n' * 1023, self.header.backing_file)
                self.assertEqual('n' * 1023, self.header.backing_format)

    def test_both_ways_find_the_same_in_what_qemu_makes(self) -> None:
        for form in ('qcow', 'qcow2', 'qed'):
            path = self.path(form)
            nodes.qemu_img(
                'create', '-u', '-f', form, '-b', 'name', '-F', 'raw', path,
                '1M',
            )  # fmt: skip
            found = []
            for costly in (True, False):
                self.reads(path, costly)
                found.append(self.header)
            self.assertEqual(found[0], found[1])
            self.assertEqual('name', found[0].backing_file)

    def test_any_number_of_extensions_takes_two_reads_at_most(self) -> None:
        for end in (80, 40000, 64 * 1024 - 2048, 64 * 1024 - 8, 64 * 1024):
            for offset in (2**17, 2**21):
                path = self.extensions(end, b'n' * 1023, offset)
                self.assertLessEqual(len(self.reads(path)), 2)
                self.assertEqual('n' * 1023, self.header.backing_file)

    def test_a_name_in_the_last_extension_is_read(self) -> None:
        self.reads(self.extensions(64 * 1024 - 8, b'n' * 1023, 2**17))
        self.assertEqual('n' * 1023, self.header.backing_format)

    def test_no_read_is_large(self) -> None:
        path = self.write(
            struct.pack('>4sIQI', b'QFI\xfb', 2, 2**20, 2**31).ljust(2**21)
        )
        self.assertEqual([65 * 1024], self.reads(path))

    @hypothesis.given(
        st.sampled_from(
            [b'QFI\xfb\0\0\0\2', b'QFI\xfb\0\0\0\3', b'QED\0',
             b'KDMV', b'# Disk DescriptorFile', b''],
        ),
        st.binary(min_size=100, max_size=600),
        st.binary(max_size=8),
    )  # fmt: skip
    def test_no_bytes_take_more(
        self, magic: bytes, rest: bytes, after: bytes
    ) -> None:
        path = self.write(magic + rest + after * 20000)
        self.assertLessEqual(len(self.reads(path)), 2)
