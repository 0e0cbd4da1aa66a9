# SPDX-License-Identifier: Apache-2.0

"""The cloud as its administrator sees it, through openstacksdk."""

import datetime
from typing import Any

import openstack
from openstack import exceptions

from integration import system

_COMPUTE = 'http://127.0.0.1:8774/v2.1'
_IMAGE = 'http://127.0.0.1:9292'


class Cloud:
    """What the tests ask of Nova and Glance."""

    def __init__(self) -> None:
        """Connect to nobody yet."""
        self.connection = openstack.connect(
            load_envvars=False,
            load_yaml_config=False,
            # There is no Keystone, so anything is a token.
            auth_type='admin_token',
            auth={'endpoint': _COMPUTE, 'token': 'any'},
            compute_endpoint_override=_COMPUTE,
            image_endpoint_override=_IMAGE,
            # 2.37 is the first that has "networks: none".
            compute_default_microversion='2.81',
        )

    def is_up(self, binary: str, since: float = 0) -> bool:
        """Whether a service of Nova has said that it is up, since a time."""
        try:
            listed = list(self.connection.compute.services(binary=binary))
        except exceptions.SDKException:
            return False
        for each in listed:
            if each.updated_at:
                said = datetime.datetime.fromisoformat(each.updated_at)
                said = said.replace(tzinfo=datetime.UTC)
                return each.state == 'up' and said.timestamp() >= since
        return False

    def upload(self, content: bytes) -> str:
        """Make an image; give its ID."""
        image: str = self.connection.image.create_image(
            'random',
            data=content,
            container_format='bare',
            disk_format='raw',
            visibility='public',
        ).id
        return image

    def make_flavor(self, name: str, **fields: int) -> str:
        """Make a flavor; give its ID."""
        flavor: str = self.connection.compute.create_flavor(
            name=name, **{'ram': 64, 'vcpus': 1, 'disk': 1, **fields}
        ).id
        return flavor

    def boot(self, name: str, image: str, flavor: str) -> str:
        """Make a guest; give its UUID."""
        uuid: str = self.connection.compute.create_server(
            name=name, image_id=image, flavor_id=flavor, networks='none'
        ).id
        return uuid

    def wait_for_status(self, uuid: str, status: str) -> Any:
        """Wait until a guest has a status; give it.

        :raises Failed: it has not, or is in error
        """

        def there() -> Any:
            server = self.connection.compute.get_server(uuid)
            if server.status == 'ERROR' != status:
                raise system.Failed(str(server.fault))
            found = server.status == status and server.task_state is None
            return server if found else None

        return system.wait_for(there, 120, f'server {uuid} is {status}')

    def reboot_hard(self, uuid: str) -> None:
        """Have a guest made anew from its disk."""
        self.connection.compute.reboot_server(uuid, 'HARD')

    def delete(self, uuid: str) -> None:
        """Delete a guest, and wait until it is gone."""
        compute = self.connection.compute
        server = compute.get_server(uuid)
        compute.delete_server(server)
        compute.wait_for_delete(server, interval=0.1)

    def make_aggregate(self, host: str) -> str:
        """Make an aggregate of one host; give its ID."""
        compute = self.connection.compute
        aggregate: str = compute.create_aggregate(name='all').id
        compute.add_host_to_aggregate(aggregate, host)
        return aggregate

    def precache(self, aggregate: str, image: str) -> None:
        """Have the hosts of an aggregate fetch an image."""
        self.connection.compute.aggregate_precache_images(aggregate, [image])
