# SPDX-License-Identifier: Apache-2.0

"""The client of the image service in nova-compute."""

from typing import Any

from nova import utils


def get_client() -> Any:
    """Give Nova's own way to the image service, as its service user.

    :returns: an adapter, see
        :class:`nova_imagecache.heal.sources.image_api.ImageClient`
    :raises Exception: anything that Nova and keystoneauth1 raise
    """
    return utils.get_sdk_adapter(
        'image', admin=True, conf_group='service_user'
    )
