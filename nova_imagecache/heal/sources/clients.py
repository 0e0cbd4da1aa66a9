# SPDX-License-Identifier: Apache-2.0

"""How a client of the image service is got, outside of nova-compute.

openstacksdk and keystoneauth1 are imported when the first client is asked
for, and so only by the process that repairs: they take 40 MiB and 0.4 s.
"""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import os
import random
from typing import Any
import warnings

from oslo_config import cfg

from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import image_api

State = sources.State

#: Of nova.conf, in the order in which they are asked for a user.
USER_GROUPS = ('service_user', 'glance')
_GROUP = 'glance'

_TIMEOUT_SECONDS = 30

_WAY_OUT = (
    'see [service_user] and [glance] of nova.conf, or name a cloud of '
    'clouds.yaml with OS_CLOUD'
)

GetClient = Callable[[], image_api.ImageClient]


def _not_configured(problem: str) -> sources.Unavailable:
    return sources.Unavailable(
        State.NOT_CONFIGURED,
        f'the image service cannot be asked: {problem}; {_WAY_OUT}',
    )


def absent() -> image_api.ImageClient:
    """Give no client, where there is nothing to make one from.

    :raises sources.Unavailable: always
    """
    raise _not_configured('nothing says how')


def from_options(conf: cfg.ConfigOpts, cloud: str | None = None) -> GetClient:
    """Give what makes a client, from nova.conf or clouds.yaml.

    :param conf: with nova.conf read
    :param cloud: name of a cloud in clouds.yaml, instead of nova.conf; by
        default what the environment has as OS_CLOUD
    """

    def get_client() -> image_api.ImageClient:
        try:
            with _quiet():
                chosen = cloud or os.environ.get('OS_CLOUD')
                if chosen:
                    return _of_cloud(chosen)
                return _of_options(conf)
        except ImportError as error:
            raise _not_configured(
                f'{error.name} is not installed here: it comes with '
                'nova-imagecache[image-service], or with the package of your '
                'distribution (python3-openstacksdk)'
            ) from error
        except sources.Unavailable:
            raise
        except Exception as error:
            found = image_api.unavailable(error)
            if found.state in (State.NOT_CONFIGURED, State.FAILED):
                raise _not_configured(str(found)) from error
            raise found from error

    return get_client


def from_paths(paths: Sequence[str], cloud: str | None = None) -> GetClient:
    """Give what makes a client, from files that are read when one is needed.

    :param paths: of what the host has for nova.conf: files and directories
    """

    def get_client() -> image_api.ImageClient:
        conf = cfg.ConfigOpts()
        try:
            conf(
                [],
                project='nova',
                default_config_files=[*filter(os.path.isfile, paths)],
                default_config_dirs=[*filter(os.path.isdir, paths)],
            )
        except (cfg.Error, OSError) as error:
            raise _not_configured(str(error)) from error
        return from_options(conf, cloud)()

    return get_client


@contextlib.contextmanager
def _quiet() -> Any:
    """Have nobody warn on the operator's screen of what is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def _of_cloud(cloud: str) -> image_api.ImageClient:
    import openstack

    client: image_api.ImageClient = openstack.connect(
        cloud=cloud, api_timeout=_TIMEOUT_SECONDS
    ).image
    return client


def _of_options(conf: cfg.ConfigOpts) -> image_api.ImageClient:
    from keystoneauth1 import loading
    import openstack

    group = _user_group(conf)
    auth = loading.load_auth_from_conf_options(conf, group)
    session = loading.load_session_from_conf_options(conf, group, auth=auth)
    if session.timeout is None:
        # Else a Keystone that says nothing is waited for for ever.
        session.timeout = _TIMEOUT_SECONDS
    _register_service(conf)
    connection = openstack.connection.Connection(
        session=session, oslo_conf=conf, service_types=['image']
    )
    client: image_api.ImageClient = connection.image
    return client


def _user_group(conf: cfg.ConfigOpts) -> str:
    """Say in which group there is a user, and know its options from then on.

    :raises sources.Unavailable: there is none
    """
    from keystoneauth1 import loading

    for group in USER_GROUPS:
        loading.register_auth_conf_options(conf, group)
        loading.register_session_conf_options(conf, group)
        if conf[group].auth_section or conf[group].auth_type:
            return group
    raise _not_configured('there is no auth_type in [service_user]')


def _register_service(conf: cfg.ConfigOpts) -> None:
    """Know where the image service is, as nova/conf/glance.py does."""
    from keystoneauth1 import loading

    loading.register_adapter_conf_options(conf, _GROUP)
    conf.register_opt(cfg.ListOpt('api_servers'), group=_GROUP)
    defaults = {
        'service_type': 'image',
        'valid_interfaces': ['internal', 'public'],
    }
    for name, value in defaults.items():
        conf.set_default(name, value, group=_GROUP)
    servers = conf[_GROUP].api_servers
    if servers and not conf[_GROUP].endpoint_override:
        # kolla sets these alone. Any will do, as for Nova.
        server = random.choice(servers)  # noqa: S311 for spreading load
        if '//' not in server:
            server = f'http://{server}'
        conf.set_override('endpoint_override', server, group=_GROUP)
