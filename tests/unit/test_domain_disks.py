# SPDX-License-Identifier: Apache-2.0

"""What libvirt says of each disk of a domain."""

import ddt

from nova_imagecache.witnesses import domain_xml
from tests.support import base


def device(xml: str, start: str = '') -> tuple[domain_xml.DomainDisk, ...]:
    xml = f'<domain {start}><devices>{xml}</devices></domain>'
    return domain_xml.read_domain(xml).disks


def chain(*stores: str, end: str = '<backingStore/>') -> str:
    for store in reversed(stores):
        end = store.replace('</backingStore>', f'{end}</backingStore>')
    return f"<disk type='file'><source file='/top'/>{end}</disk>"


def store(path: str) -> str:
    return (
        "<backingStore type='file'><format type='raw'/>"
        f"<source file='{path}'/></backingStore>"
    )


IN_BLOCK = (
    "<backingStore type='block'><source dev='/dev/vg/b'/></backingStore>"
)
IN_VOLUME = (
    "<backingStore type='volume'><source pool='p' volume='v'/></backingStore>"
)
IN_NETWORK = (
    "<backingStore type='network'><source protocol='nbd' name='e'>"
    "<host name='far'/></source></backingStore>"
)


@ddt.ddt
class DisksTest(base.TestCase):
    """Which disks a domain has, and what is known of them."""

    @ddt.data(
        ('file', "<source file='/x/a&amp;b' index='1'/>", '/x/a&b', '/x/a&b'),
        ('block', "<source dev='/dev/vg/lv'/>", '/dev/vg/lv', '/dev/vg/lv'),
        ('file', "<source file='x'/>", 'x', None),
        (
            'network',
            "<source protocol='rbd' name='pool/image'><host name='mon'/>"
            '</source>',
            'rbd:pool/image',
            None,
        ),
        (
            'network',
            "<source protocol='nbd'><host transport='unix' socket='/run/s'/>"
            '</source>',
            'nbd:/run/s',
            None,
        ),
        ('network', "<source protocol='nbd'/>", 'nbd:', None),
        ('volume', "<source pool='pool' volume='v'/>", 'pool/v', None),
        (
            'nvme',
            "<source type='pci' namespace='1'><address domain='0x0000' "
            "bus='0x01' slot='0x00' function='0x0'/></source>",
            'nvme:0000:01:00.0/1',
            None,
        ),
        ('nvme', '<source/>', 'nvme:', None),
        (
            'vhostuser',
            "<source type='unix' path='/run/s'/>",
            'vhostuser:/run/s',
            None,
        ),
        ('vhostvdpa', "<source dev='/dev/v'/>", 'vhostvdpa:/dev/v', None),
        ('dir', "<source dir='/x/d'/>", '/x/d', None),
        ('new', "<source more='x'/>", 'new:', None),
    )
    @ddt.unpack
    def test_a_disk_of_each_type_is_one(
        self, kind: str, source: str, name: str, path: str | None
    ) -> None:
        xml = f"<disk type='{kind}' device='disk'>{source}</disk>"
        self.assertEqual(
            (domain_xml.DomainDisk(name, path, 'raw'),), device(xml)
        )

    def test_a_volume_has_the_path_that_its_pool_tells(self) -> None:
        asked = []

        def volume_path(*names: str) -> str:
            asked.append(names)
            return paths.pop()

        xml = (
            "<domain><devices><disk type='volume'>"
            "<source pool='p' volume='v'/></disk></devices></domain>"
        )
        # Those of a pool of Ceph are no paths.
        paths = ['p/v', '/pool/v']
        for path in ('/pool/v', None):
            (disk,) = domain_xml.read_domain(xml, volume_path).disks
            self.assertEqual(('p/v', path), (disk.source, disk.path))
        self.assertEqual([('p', 'v')] * 2, asked)

    @ddt.data(
        "<disk type='file' device='cdrom'><target dev='sda'/></disk>",
        "<disk type='file' device='cdrom'><source index='1'/></disk>",
        "<disk type='block' device='cdrom'><source/></disk>",
        "<disk type='network' device='cdrom'/>",
        "<disk type='volume' device='floppy'/>",
        "<filesystem type='mount'><driver type='virtiofs'/>"
        "<source dir='/share'/><target dir='tag'/></filesystem>",
        "<filesystem><source dir='/share'/></filesystem>",
        "<filesystem type='ram'><source usage='1'/></filesystem>",
        "<hostdev type='pci'><source file='/x'/></hostdev>",
    )
    def test_an_empty_drive_or_a_share_is_no_disk(self, xml: str) -> None:
        self.assertEqual((), device(xml))

    @ddt.data(
        ('disk', False), ('lun', False), ('cdrom', True), ('floppy', True)
    )
    @ddt.unpack
    def test_what_can_be_taken_out_is_removable(
        self, kind: str, removable: bool
    ) -> None:
        xml = f"<disk type='file' device='{kind}'><source file='/x'/></disk>"
        (disk,) = device(xml)
        self.assertEqual(removable, disk.removable)

    @ddt.data(
        ("<driver name='qemu' type='qcow2'/>", 'qcow2'),
        ("<driver name='qemu' type='raw'/>", 'raw'),
        ("<driver name='qemu'/>", 'raw'),
        ('', 'raw'),
    )
    @ddt.unpack
    def test_the_format_is_what_libvirt_says(
        self, driver: str, kind: str
    ) -> None:
        xml = f"<disk type='file'>{driver}<source file='/x'/></disk>"
        self.assertEqual([kind], [disk.format for disk in device(xml)])

    @ddt.data(
        (
            "<filesystem type='file'><driver type='nbd' format='qcow2'/>"
            "<source file='/x'/></filesystem>",
            'qcow2',
        ),
        (
            "<filesystem type='file'><driver type='loop'/>"
            "<source file='/x'/></filesystem>",
            'raw',
        ),
        ("<filesystem type='block'><source dev='/x'/></filesystem>", 'raw'),
    )
    @ddt.unpack
    def test_an_image_of_a_file_system_is_a_disk(
        self, xml: str, kind: str
    ) -> None:
        self.assertEqual(
            (domain_xml.DomainDisk('/x', '/x', kind),), device(xml)
        )

    @ddt.data(
        "<mirror type='block' job='copy'><format type='qcow2'/>"
        "<source dev='/to'/></mirror>",
        "<mirror file='/to' format='qcow2'/>",
        "<mirror type='file' file='/to' format='qcow2' job='copy'>"
        "<format type='qcow2'/><source file='/to'/></mirror>",
    )
    def test_what_a_disk_is_copied_to_is_a_disk(self, mirror: str) -> None:
        xml = f"<disk type='file'><source file='/from'/>{mirror}</disk>"
        (_disk, copy) = device(xml)
        self.assertEqual(domain_xml.DomainDisk('/to', '/to', 'qcow2'), copy)

    def test_a_copy_has_layers_of_its_own(self) -> None:
        copy = chain(store('/x')).replace('disk', 'mirror')
        xml = chain().replace('</disk>', f'{copy}</disk>')
        self.assertEqual(
            [(), ('/x',)], [disk.layers for disk in device(xml, "id='1'")]
        )

    @ddt.data(
        (chain(), ()),
        (chain(store('/a'), IN_BLOCK), ('/a', '/dev/vg/b')),
        (chain(store('/a'), IN_VOLUME), ('/a', '/p/v')),
        (chain(end=''), None),
        (chain(store('/a'), end=''), None),
        (chain(IN_NETWORK), None),
        (chain(store('/a'), IN_NETWORK, store('/b')), None),
        (chain(store('relative')), None),
        (chain(end="<backingStore type='file'/>"), None),
    )
    @ddt.unpack
    def test_layers_are_known_where_all_are_shown_and_here(
        self, xml: str, layers: tuple[str, ...] | None
    ) -> None:
        xml = f"<domain id='7'><devices>{xml}</devices></domain>"
        read = domain_xml.read_domain(xml, '/{}/{}'.format)
        self.assertEqual([layers], [disk.layers for disk in read.disks])

    def test_a_data_file_is_below_its_disk(self) -> None:
        xml = chain(store('/a')).replace(
            "<source file='/top'/>",
            "<source file='/top'><dataStore type='file'><format type='raw'/>"
            "<source file='/data'/></dataStore></source>",
        )
        (disk,) = device(xml, "id='1'")
        self.assertEqual(('/data', '/a'), disk.layers)

    def test_what_a_definition_says_of_layers_does_not_count(self) -> None:
        (disk,) = device(chain(store('/a')))
        self.assertEqual(('/top', None), (disk.path, disk.layers))

    def test_a_chain_of_any_length_is_read(self) -> None:
        depth = 5000
        start = "<backingStore type='file'><source file='/a'/>"
        xml = start * depth + '<backingStore/>' + '</backingStore>' * depth
        (disk,) = device(chain(end=xml), "id='1'")
        self.assertEqual(('/a',) * depth, disk.layers)


class JoinTest(base.TestCase):
    """A domain as it runs, and as it is defined."""

    def join(
        self, running: str, defined: str
    ) -> tuple[domain_xml.DomainDisk, ...]:
        return domain_xml.join(
            domain_xml.read_domain(
                f"<domain id='1'><devices>{running}</devices></domain>"
            ),
            domain_xml.read_domain(
                f'<domain><devices>{defined}</devices></domain>'
            ),
        ).disks

    def test_a_disk_in_both_counts_once_with_its_layers(self) -> None:
        self.assertEqual(
            (domain_xml.DomainDisk('/top', '/top', 'raw', ('/a',)),),
            self.join(chain(store('/a')), chain(end='')),
        )

    def test_a_disk_without_layers_in_both_counts_once(self) -> None:
        (disk,) = self.join(chain(end=''), chain(end=''))
        self.assertIsNone(disk.layers)

    def test_a_disk_in_one_of_them_counts(self) -> None:
        other = chain(end='').replace('/top', '/other')
        disks = self.join(chain(), other)
        self.assertEqual(['/top', '/other'], [disk.path for disk in disks])

    def test_a_disk_of_another_format_is_another(self) -> None:
        other = chain(end='').replace('<source', "<driver type='qed'/><source")
        disks = self.join(chain(), other)
        self.assertEqual(
            [('raw', ()), ('qed', None)],
            [(disk.format, disk.layers) for disk in disks],
        )
