# SPDX-License-Identifier: Apache-2.0

"""Guests as libvirt knows them; here a real one, with its test driver."""

from collections.abc import Callable
import os
from typing import Any

import libvirt

from nova_imagecache import names
from nova_imagecache.witnesses import domains
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import testimonies
from tests.support import nodes

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'
OTHER = '22222222-bbbb-4bbb-8bbb-000000000002'
IMAGE = 'fe55c69a-8b2e-4bbc-811a-9ad2023a0426'

ORIGINAL = names.get_cache_fname(IMAGE)
RESIZED = f'{ORIGINAL}_20'
SWAP = 'swap_512'
BASE_FILES = (ORIGINAL, RESIZED, SWAP, f'{ORIGINAL}_20.part', 'golden')

_NOVA = 'http://openstack.org/xmlns/libvirt/nova/1.1'


def guest_xml(
    uuid: str, file: str, image: str | None = None, kind: str | None = None
) -> str:
    note = ''
    driver = f"<driver name='qemu' type='{kind}'/>" if kind else ''
    if image:
        note = (
            f"<metadata><nova:instance xmlns:nova='{_NOVA}'>"
            f"<nova:root type='image' uuid='{image}'/>"
            '</nova:instance></metadata>'
        )
    return f"""
<domain type='test'>
  <name>instance-{uuid}</name>
  <uuid>{uuid}</uuid>
  {note}
  <memory>1024</memory>
  <os><type>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      {driver}
      <source file='{file}'/><target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


def quiet(_context: object, _error: object) -> None:
    """Keep libvirt from printing what the tests provoke."""


libvirt.registerErrorHandler(quiet, None)


def missing() -> libvirt.libvirtError:
    """Give the error of a real libvirt about a domain that is not there."""
    try:
        libvirt.open('test:///default').lookupByName('nobody')
    except libvirt.libvirtError as error:
        return error
    raise AssertionError('it is there')


class DomainsTestCase(nodes.FileTestCase):
    def write_node(self, *guests: str) -> str:
        """Make a node for the test driver; give the URI."""
        path = os.path.join(self.temporary, 'node.xml')
        with open(path, 'w') as file:
            file.write('<node>' + ''.join(guests) + '</node>')
        return f'test://{path}'

    def look(
        self,
        uri: str,
        connect: Callable[[], Any] | None = None,
    ) -> testimonies.Testimony:
        connection = None
        if connect is not None:
            connection = libvirt_connection.HostConnection(connect)
        witness = domains.DomainWitness(uri, 'compute1', connection)
        return witness.look(BASE_FILES)

    def assert_failure(
        self, testimony: testimonies.Testimony, *words: str
    ) -> None:
        (failure,) = testimony.failures
        self.assertEqual(testimonies.Testimony(failures=(failure,)), testimony)
        self.assertTrue(failure.startswith('libvirt at '), failure)
        self.assertTrue(failure.isprintable(), failure)
        for word in words:
            self.assertIn(word, failure)
