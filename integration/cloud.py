# SPDX-License-Identifier: Apache-2.0

"""The cloud as its administrator sees it, through openstacksdk."""

import datetime
from typing import Any

import openstack
from openstack import exceptions

from integration import system

PASSWORD = 'secret'

#: Where each service is, by its type.
ENDPOINTS = {
    'compute': 'http://127.0.0.1:8774/v2.1',
    'image': 'http://127.0.0.1:9292',
    'placement': 'http://127.0.0.1:8778',
}
IDENTITY = 'http://127.0.0.1:5000/v3'

#: The project of the users of services, and that of who has guests.
SERVICES = 'service'
OWNER = 'owner'

#: The role that the documentation has for reading private images.
IMAGE_READER = 'image_reader'
ADMIN = 'admin'


def connect(user: str, project: str) -> Any:
    """Log in, when something is asked."""
    return openstack.connect(
        load_envvars=False,
        load_yaml_config=False,
        auth_type='password',
        auth={
            'auth_url': IDENTITY,
            'username': user,
            'password': PASSWORD,
            'project_name': project,
            'user_domain_id': 'default',
            'project_domain_id': 'default',
        },
        # 2.37 is the first that has "networks: none".
        compute_default_microversion='2.81',
    )


class Cloud:
    """What the tests ask of Nova, Glance and Keystone.

    :ivar connection: of the administrator
    :ivar owner: of who has images and guests, and is no administrator
    """

    def __init__(self) -> None:
        """Connect to nobody yet."""
        self._log_in()

    def _log_in(self) -> None:
        self.connection = connect('admin', 'admin')
        self.owner = connect(OWNER, OWNER)

    def populate(self) -> None:
        """Make users with their roles, and say where the services are.

        Those of services have the role service, and no other.
        """
        identity = self.connection.identity
        identity.create_role(name=IMAGE_READER)
        for project in (SERVICES, OWNER):
            identity.create_project(name=project, domain_id='default')
        for user, project, role in (
            ('nova', SERVICES, 'service'),
            ('glance', SERVICES, 'service'),
            ('placement', SERVICES, 'service'),
            (OWNER, OWNER, 'member'),
        ):
            identity.create_user(
                name=user, password=PASSWORD, domain_id='default'
            )
            self.grant(user, project, role)
        for kind, url in ENDPOINTS.items():
            service = identity.create_service(name=kind, type=kind)
            identity.create_endpoint(
                service_id=service.id, interface='public', url=url,
                region_id='RegionOne',
            )  # fmt: skip
        # A token has the catalog of when it was made.
        self._log_in()

    def grant(self, user: str, project: str, role: str) -> None:
        """Give a user a role in a project."""
        identity = self.connection.identity
        identity.assign_project_role_to_user(
            *(
                find(name, ignore_missing=False)
                for find, name in (
                    (identity.find_project, project),
                    (identity.find_user, user),
                    (identity.find_role, role),
                )
            )
        )

    def roles(self, user: str) -> set[str]:
        """Give the names of the roles of a user, in all projects."""
        identity = self.connection.identity
        found = identity.role_assignments(
            user_id=identity.find_user(user, ignore_missing=False).id,
            include_names=True,
        )
        return {each.role['name'] for each in found}

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
        """Make a private image; give its ID."""
        image: str = self.owner.image.create_image(
            'random',
            data=content,
            container_format='bare',
            disk_format='raw',
            visibility='private',
            allow_duplicates=True,
        ).id
        return image

    def delete_image(self, image: str) -> None:
        """Delete an image, which guests may have."""
        self.owner.image.delete_image(image, ignore_missing=False)

    def make_flavor(self, name: str, **fields: int) -> str:
        """Make a flavor; give its ID."""
        flavor: str = self.connection.compute.create_flavor(
            name=name, **{'ram': 64, 'vcpus': 1, 'disk': 1, **fields}
        ).id
        return flavor

    def boot(self, name: str, image: str, flavor: str) -> str:
        """Make a guest; give its UUID."""
        uuid: str = self.owner.compute.create_server(
            name=name, image_id=image, flavor_id=flavor, networks='none'
        ).id
        return uuid

    def wait_for_status(self, uuid: str, status: str) -> Any:
        """Wait until a guest has a status; give it.

        :raises Failed: it has not, or is in error
        """

        def there() -> Any:
            server = self.owner.compute.get_server(uuid)
            if server.status == 'ERROR' != status:
                raise system.Failed(str(server.fault))
            found = server.status == status and server.task_state is None
            return server if found else None

        return system.wait_for(there, 120, f'server {uuid} is {status}')

    def reboot_hard(self, uuid: str) -> None:
        """Have a guest made anew from its disk."""
        self.owner.compute.reboot_server(uuid, 'HARD')

    def delete(self, uuid: str) -> None:
        """Delete a guest, and wait until it is gone."""
        compute = self.owner.compute
        server = compute.get_server(uuid)
        compute.delete_server(server)
        compute.wait_for_delete(server, interval=0.1)

    def console(self, uuid: str) -> list[str]:
        """Give the last lines that a guest has written."""
        output = self.owner.compute.get_server_console_output(uuid, length=20)
        return str(output['output']).splitlines()

    def make_aggregate(self, host: str) -> str:
        """Make an aggregate of one host; give its ID."""
        compute = self.connection.compute
        aggregate: str = compute.create_aggregate(name='all').id
        compute.add_host_to_aggregate(aggregate, host)
        return aggregate

    def precache(self, aggregate: str, image: str) -> None:
        """Have the hosts of an aggregate fetch an image."""
        self.connection.compute.aggregate_precache_images(aggregate, [image])
