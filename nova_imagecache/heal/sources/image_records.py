# SPDX-License-Identifier: Apache-2.0

"""Asking the image service what it says of one image, and no more.

By a process of its own, which this module is as a program: the client takes
42 MiB, and a scrub goes on for hours after one question.
"""

from collections.abc import Callable
from collections.abc import Sequence
import importlib.util
import json
import os
import sys

import msgspec
from oslo_config import cfg
from oslo_utils import units

from nova_imagecache import children
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import clients
from nova_imagecache.heal.sources import image_api
from nova_imagecache.heal.sources import images
from nova_imagecache import names

State = sources.State

_PROGRAM = ('-P', '-m', 'nova_imagecache.heal.sources.image_records')
_DEADLINE_SECONDS = 180

# The record of an image has a MiB at most, and is some hundred bytes here.
_MOST_BYTES = units.Mi
# Of what went wrong, in a line of the log.
_MOST_SAID = 300


def is_configured(paths: Sequence[str]) -> bool:
    """Whether the image service can be asked at all.

    :param paths: of what the host has for nova.conf: files and directories
    """
    if importlib.util.find_spec('openstack') is None:
        return False
    if os.environ.get('OS_CLOUD'):
        return True
    conf = cfg.ConfigOpts()
    for group in clients.USER_GROUPS:
        # As keystoneauth1 has them, without its import.
        conf.register_opts(
            [cfg.StrOpt('auth_type'), cfg.StrOpt('auth_section')], group
        )
    try:
        conf(
            [],
            project='nova',
            default_config_files=[*filter(os.path.isfile, paths)],
            default_config_dirs=[*filter(os.path.isdir, paths)],
        )
        return any(
            conf[group].auth_type or conf[group].auth_section
            for group in clients.USER_GROUPS
        )
    except (cfg.Error, OSError):
        return False


def ask(uuid: str, paths: Sequence[str], watch: sources.Watch) -> images.Image:
    """Have a process ask for an image, and wait for it.

    :param paths: as for :func:`is_configured`
    :raises sources.Unavailable: there is none, or it cannot be asked for
    """
    try:
        done = children.run(
            sys.executable,
            *_PROGRAM,
            uuid,
            *paths,
            timeout=_DEADLINE_SECONDS,
            look=watch.look,
            most=_MOST_BYTES,
        )
    except children.TimedOut as error:
        raise sources.Unavailable(
            State.TIMEOUT, f'no answer in {_DEADLINE_SECONDS} s'
        ) from error
    except OSError as error:
        raise sources.Unavailable(
            State.FAILED,
            f'the process that asks cannot be run: {error.strerror}',
        ) from error
    try:
        found = json.loads(done.stdout)
        if 'state' in found:
            raise sources.Unavailable(State(found['state']), found['message'])
        return msgspec.convert(found, images.Image)
    except (ValueError, LookupError, TypeError) as error:
        status = f'it ended with status {done.returncode}'
        lines = os.fsdecode(done.stderr).strip().splitlines()
        last = names.printable([status, *lines][-1][:_MOST_SAID])
        raise sources.Unavailable(
            State.FAILED, f'the process that asks does not answer: {last}'
        ) from error


def _main(
    uuid: str, paths: Sequence[str], write: Callable[[str], object]
) -> None:
    try:
        client = clients.from_paths(paths)()
        image = image_api.ImageApi(client).image(uuid)
        write(json.dumps(msgspec.to_builtins(image)))
    except sources.Unavailable as error:
        write(json.dumps({'state': error.state, 'message': str(error)}))


if __name__ == '__main__':
    _main(sys.argv[1], sys.argv[2:], sys.stdout.write)
