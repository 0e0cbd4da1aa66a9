# SPDX-License-Identifier: Apache-2.0

import types
from typing import Any

from nova_imagecache.heal.sources import askers
from tests.support import base


def client(*roles: str, project: str | None = 'p') -> Any:
    access = types.SimpleNamespace(role_names=roles, project_id=project)
    auth = types.SimpleNamespace(get_access=lambda _session: access)
    return types.SimpleNamespace(session=types.SimpleNamespace(auth=auth))


def listed(visibility: str, owner: str | None) -> list[dict[str, str | None]]:
    return [{'visibility': visibility, 'owner': owner}]


class AskerTest(base.TestCase):
    def test_an_administrator_sees_all(self) -> None:
        for found in (
            askers.who_asks(client('Admin', 'service')),
            askers.who_asks(client('admin', project=None)),
        ):
            assert found is not None
            self.assertTrue(found.sees_all([]))
            # What is in front of the image service has no list.
            self.assertFalse(found.sees_all({}))
            self.assertFalse(found.sees_all(None))

    def test_another_one_does_who_is_shown_what_is_private(self) -> None:
        found = askers.who_asks(client('service', 'image_reader'))
        assert found is not None
        self.assertIn('visibility=private', found.question)
        self.assertTrue(
            found.sees_all([*listed('private', 'p'), *listed('private', 'q')])
        )
        for owner in ('p', '', None):
            self.assertFalse(found.sees_all(listed('private', owner)))
        for visibility in ('public', 'shared', 'community'):
            self.assertFalse(found.sees_all(listed(visibility, 'q')))
        self.assertFalse(found.sees_all([]))

    def test_of_who_has_no_project_and_no_such_role_nothing_is_known(
        self,
    ) -> None:
        self.assertIsNone(askers.who_asks(client('service', project=None)))
        self.assertIsNone(askers.who_asks(object()))
