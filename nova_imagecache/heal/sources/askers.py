# SPDX-License-Identifier: Apache-2.0

"""Whether who asks the image service would see any image that there is.

Only then a 404 says that an image is gone (decision 0095).
"""

import contextlib
import dataclasses
from typing import Any

# Who has this role sees each image: ``get_image`` in glance/policies/image.py.
_ADMIN = 'admin'


@dataclasses.dataclass(frozen=True)
class Asker:
    """Who asks the image service.

    :ivar project: ID of the project
    :ivar is_admin: whether the role that shows all images is there
    """

    project: str
    is_admin: bool

    @property
    def question(self) -> str:
        """What to ask for, to find out what is seen."""
        if self.is_admin:
            return '/images?limit=1'
        return '/images?visibility=private&limit=100'

    def sees_all(self, listed: Any) -> bool:
        """Whether this answer comes to somebody who sees all images.

        The service of the image may not be what answers, but what is in front
        of it; and who has another role may be an administrator to it.

        :param listed: the images in the answer
        """
        if not isinstance(listed, list):
            return False
        # To others a private image is shown in its project alone.
        return self.is_admin or any(
            each['visibility'] == 'private'
            and each['owner'] not in (None, '', self.project)
            for each in listed
        )


def who_asks(client: Any) -> Asker | None:
    """Say who that is; None where it cannot be told."""
    # Whatever else a client may be has no roles.
    with contextlib.suppress(Exception):
        session = client.session
        access = session.auth.get_access(session)
        roles = {str(role).lower() for role in access.role_names}
        if access.project_id or _ADMIN in roles:
            return Asker(str(access.project_id), _ADMIN in roles)
    return None
