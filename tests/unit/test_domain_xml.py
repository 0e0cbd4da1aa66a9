# SPDX-License-Identifier: Apache-2.0

import contextlib

import ddt
import hypothesis
from hypothesis import strategies

from nova_imagecache.witnesses import domain_xml
from tests.support import base

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
IMAGE = 'fe55c69a-8b2e-4bbc-811a-9ad2023a0426'

# As a libvirt 9.0 shows a running guest, less what has nothing to do with it.
RUNNING = f"""
<domain type='qemu' id='1'>
  <name>instance-00000001</name>
  <uuid>{GUEST}</uuid>
  <metadata>
    <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
      <nova:name>one</nova:name>
      <nova:owner>
        <nova:user uuid='3472c2a6-de91-4fb5-b618-42bc781ef670'>u</nova:user>
      </nova:owner>
      <nova:root type='image' uuid='{IMAGE}'/>
    </nova:instance>
  </metadata>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
    <kernel>/instances/{GUEST}/kernel</kernel>
    <initrd>/instances/{GUEST}/ramdisk</initrd>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/instances/{GUEST}/disk' index='1'/>
      <backingStore type='file' index='2'>
        <format type='qcow2'/>
        <source file='/snapshots/between'/>
        <backingStore type='file' index='3'>
          <format type='raw'/>
          <source file='/instances/_base/base'/>
          <backingStore/>
        </backingStore>
      </backingStore>
      <mirror type='file' file='/old/way' job='copy'>
        <source file='/new/way'/>
      </mirror>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <source bridge='br-int'/>
    </interface>
  </devices>
</domain>
"""


def domain(body: str, start: str = '') -> str:
    return f"{start}<domain type='qemu'>{body}</domain>"


def disk(body: str) -> str:
    return domain(f'<devices><disk>{body}</disk></devices>')


def metadata(body: str, version: str = '1.1') -> str:
    namespace = f'http://openstack.org/xmlns/libvirt/nova/{version}'
    return domain(
        f"<metadata><nova:instance xmlns:nova='{namespace}'>{body}"
        '</nova:instance></metadata>'
    )


@ddt.ddt
class DomainXmlTest(base.TestCase):
    def assert_malformed(self, xml: str, text: str) -> None:
        with self.assertRaisesRegex(domain_xml.MalformedDomain, text):
            domain_xml.read_domain(xml)

    def test_a_running_guest_needs_its_whole_chain(self) -> None:
        read = domain_xml.read_domain(RUNNING)
        self.assertEqual((GUEST, 'instance-00000001'), (read.uuid, read.name))
        files = {'disk', 'between', 'base', 'way', 'kernel', 'ramdisk'}
        self.assertLessEqual(files, read.files)
        self.assertEqual(set(), read.files & {'br-int', 'hvm', 'vda', 'one'})
        self.assertEqual({IMAGE}, read.images)
        top = f'/instances/{GUEST}/disk'
        self.assertEqual(
            (
                domain_xml.DomainDisk(
                    source=top,
                    path=top,
                    format='qcow2',
                    layers=('/snapshots/between', '/instances/_base/base'),
                ),
                domain_xml.DomainDisk('/new/way', '/new/way', 'raw'),
            ),
            read.disks,
        )

    @ddt.data(
        "<source dev='/dev/mapper/base'/>",
        "<source pool='default' volume='base'/>",
        "<source protocol='rbd' name='pool/base'/>",
        "<source dir='/some/base/'/>",
        "<source file='/a'><dataStore><source file='/b/base'/>"
        '</dataStore></source>',
        "<backingStore type='volume'><source volume='base'/></backingStore>",
    )
    def test_any_kind_of_source_counts(self, body: str) -> None:
        self.assertIn('base', domain_xml.read_domain(disk(body)).files)

    def test_an_image_that_is_a_file_system_counts(self) -> None:
        xml = domain(
            "<devices><filesystem type='file'><source file='/x/base'/>"
            "<target dir='/'/></filesystem></devices>"
        )
        self.assertEqual({'base'}, domain_xml.read_domain(xml).files)

    def test_a_name_with_an_ampersand_is_read_as_it_is(self) -> None:
        read = domain_xml.read_domain(disk("<source file='/x/a&amp;b'/>"))
        self.assertEqual({'a&b'}, read.files)

    @ddt.data('1.0', '1.1', '2.0')
    def test_novas_note_of_the_image_counts_in_any_version(
        self, version: str
    ) -> None:
        body = f"<nova:root type='image' uuid='{IMAGE}'/>"
        xml = metadata(body, version)
        self.assertEqual({IMAGE}, domain_xml.read_domain(xml).images)

    @ddt.data(
        metadata(f"<nova:root type='volume' uuid='{IMAGE}'/>"),
        metadata("<nova:root type='image'/>"),
        domain(f"<metadata><root type='image' uuid='{IMAGE}'/></metadata>"),
        domain(
            "<metadata><x:root xmlns:x='http://example.org/' type='image' "
            f"uuid='{IMAGE}'/></metadata>"
        ),
    )
    def test_nothing_else_is_an_image(self, xml: str) -> None:
        self.assertEqual(frozenset(), domain_xml.read_domain(xml).images)

    @ddt.data(
        ("<driver type='raw'/>", False),
        ("<driver type='raw'/></disk><disk><driver type='raw'/>", False),
        ("<driver type='raw'/></disk><disk><driver type='qcow2'/>", True),
        (
            "<driver type='raw'/></disk><filesystem><driver type='loop'/>"
            "</filesystem><disk><driver type='raw'/>",
            True,
        ),
        (
            "<driver type='raw'/></disk><filesystem/><disk>"
            "<driver type='raw'/>",
            True,
        ),
        (
            "<driver type='raw'/></disk><filesystem><driver type='virtiofs'/>"
            "</filesystem><disk><driver type='raw'/>",
            False,
        ),
        ("<driver name='qemu'/>", True),
        ('', True),
    )
    @ddt.unpack
    def test_the_image_does_not_count_where_all_disks_are_copies(
        self, disks: str, counts: bool
    ) -> None:
        body = f"<nova:root type='image' uuid='{IMAGE}'/>"
        xml = metadata(body).replace(
            '</domain>', f'<devices><disk>{disks}</disk></devices></domain>'
        )
        images = domain_xml.read_domain(xml).images
        self.assertEqual({IMAGE} if counts else frozenset(), images)

    def test_a_domain_without_anything_needs_nothing(self) -> None:
        self.assertEqual(
            domain_xml.Domain(None, None, frozenset(), frozenset(), ()),
            domain_xml.read_domain(domain('<uuid/><name> </name>')),
        )

    @ddt.data('', 'no xml', '<domain>', '<domain/><domain/>', '\0', '\udce9')
    def test_what_is_no_xml_is_malformed(self, xml: str) -> None:
        self.assert_malformed(xml, 'no XML')

    def test_what_is_no_domain_is_malformed(self) -> None:
        self.assert_malformed('<network/>', 'no domain')

    def test_entities_are_not_even_declared(self) -> None:
        entities = ''.join(
            f'<!ENTITY e{number} "{f"&e{number - 1};" * 100}">'
            for number in range(1, 9)
        )
        start = f'<!DOCTYPE d [<!ENTITY e0 "word">{entities}]>'
        self.assert_malformed(
            domain('<name>&e8;</name>', start), 'document type'
        )

    @hypothesis.given(
        strategies.integers(0, len(RUNNING)),
        strategies.integers(0, 40),
        strategies.text(max_size=10),
    )
    def test_damage_of_any_kind_is_read_or_malformed(
        self, start: int, length: int, text: str
    ) -> None:
        with contextlib.suppress(domain_xml.MalformedDomain):
            domain_xml.read_domain(
                RUNNING[:start] + text + RUNNING[start + length :]
            )

    def test_deep_nesting_is_no_reason_to_fall_over(self) -> None:
        depth = 5000
        body = '<backingStore>' * depth + "<source file='/x/base'/>"
        xml = disk(body + '</backingStore>' * depth)
        self.assertEqual({'base'}, domain_xml.read_domain(xml).files)

    def test_files_and_images_of_both_forms_count(self) -> None:
        joined = domain_xml.join(
            domain_xml.read_domain(disk("<source file='/x/a'/>")),
            domain_xml.read_domain(
                metadata(f"<nova:root type='image' uuid='{IMAGE}'/>")
            ),
        )
        self.assertEqual(({'a'}, {IMAGE}), (joined.files, joined.images))
