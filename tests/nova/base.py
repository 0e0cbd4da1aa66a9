# SPDX-License-Identifier: Apache-2.0

"""What these tests share: Nova's own test case on a node of real files."""

import os
from typing import Any

import fixtures

# Nova's test case forbids to import it later.
import libvirt  # noqa: F401
import nova.conf
from nova import context
from nova import objects
from nova import test
from nova.tests import fixtures as nova_fixtures
from nova.tests.unit import fake_instance
from nova.virt import driver
from nova.virt import fake
from oslo_utils.fixture import uuidsentinel

from nova_imagecache import names
from tests.support import base
from tests.support import nodes

CONF = nova.conf.CONF

#: Whether there are native threads, and no eventlet.
THREADING = os.environ['OS_NOVA_DISABLE_EVENTLET_PATCHING'] != 'false'

DRIVER = 'imagecache_ext.LibvirtDriver'


class NodeTestCase(test.TestCase):
    """Nova's test case, a node of real files, and our driver on it.

    The libvirt is a real one, the test driver of libvirt itself.
    """

    USES_DB = False

    def setUp(self) -> None:
        super().setUp()
        temporary = self.useFixture(fixtures.TempDir()).path
        os.chmod(temporary, 0o755)
        self.node = nodes.Node(os.path.join(temporary, 'instances'))
        # The driver goes by the clocks of this machine.
        self.node.clock = base.FakeClock.of_this_machine()
        self.useFixture(nodes.NoBirths())
        self.node.configure(checksum=True)
        self.flags(instances_path=self.node.layout.instances)
        self.flags(connection_uri='test:///default', group='libvirt')
        self.flags(compute_driver=DRIVER)
        self.useFixture(nova_fixtures.PrivsepFixture())
        self.context = context.get_admin_context()
        self.driver = driver.load_compute_driver(fake.FakeVirtAPI())
        self.addCleanup(self.driver.image_cache_manager.stop)

    @property
    def output(self) -> str:
        """What is logged."""
        return str(self.stdlog.logger.output)

    def options(self, **values: Any) -> None:
        """Set options of [image_cache]."""
        self.flags(group='image_cache', **values)

    def instance(self, **values: Any) -> Any:
        """Make an instance that is in no database."""
        instance = fake_instance.fake_instance_obj(self.context, **values)
        instance.trusted_certs = None
        instance.migration_context = None
        instance.system_metadata = {}
        return instance

    def instances(self, *instances: Any) -> Any:
        return objects.InstanceList(objects=list(instances))

    def add_bad_image(self, image_id: str, age: float = base.HOUR) -> str:
        """Make a base file that is known to be bad; give its name."""
        return self.add_bad(names.get_cache_fname(image_id), age)

    def add_bad(self, name: str, age: float = base.HOUR) -> str:
        """Likewise, by name."""
        self.node.add_base(name, age=age)
        self.node.run()
        nodes.flip_bit(self.node.base_path(name))
        (bad,) = self.node.run().corrupt
        assert bad.name == name
        return name

    def disk(
        self, instance: Any, name: str = 'disk', kind: str = 'qcow2'
    ) -> Any:
        """Give a disk of an instance, as the driver has it."""
        self.node.add_directory(instance.uuid)
        return self.driver.image_backend.by_name(
            instance,
            name,
            kind,
            disk_info_mapping={'bus': 'virtio', 'dev': 'vda', 'type': 'disk'},
        )


class DatabaseTestCase(NodeTestCase):
    """Likewise, with Nova's database."""

    USES_DB = True

    def create_instance(self, **values: Any) -> Any:
        """Make an instance in the database."""
        instance = objects.Instance(
            context=self.context,
            **{
                'user_id': 'me',
                'project_id': 'ours',
                'host': CONF.host,
                'kernel_id': '',
                'ramdisk_id': '',
                'flavor': objects.Flavor.get_by_name(self.context, 'm1.tiny'),
            }
            | values,
        )
        instance.create()
        return instance

    def create_device(self, instance: Any, **values: Any) -> Any:
        """Give an instance a local device, in the database."""
        device = objects.BlockDeviceMapping(
            context=self.context,
            instance_uuid=instance.uuid,
            **{
                'source_type': 'blank',
                'destination_type': 'local',
                'guest_format': None,
            }
            | values,
        )
        device.create()
        return device


IMAGE = uuidsentinel.image
