# SPDX-License-Identifier: Apache-2.0

"""Finding nova.conf as Nova finds it."""

from collections.abc import Sequence
import os

from oslo_config import cfg

from nova_imagecache.conf import read_settings
from nova_imagecache.conf import register_opts
from nova_imagecache.conf import Settings
from nova_imagecache import errors

_PROJECT = 'nova'
# Packages give nova-compute a configuration file of its own.
_PROGRAM = 'nova-compute'
# Where RDO's packages put the defaults of the distribution; the oslo.config
# that comes with them reads it before any other.
_DIST_FILE = '/usr/share/nova/nova-dist.conf'


def _default_files() -> list[str]:
    found = cfg.find_config_files(project=_PROJECT, prog=_PROGRAM)
    if os.path.exists(_DIST_FILE) and _DIST_FILE not in found:
        found.insert(0, _DIST_FILE)
    return found


def load(
    config_files: Sequence[str] = (), instances_path: str | None = None
) -> Settings:
    """Read the settings of this node, see :func:`read`."""
    return read(config_files, instances_path)[1]


def read(
    config_files: Sequence[str] = (), instances_path: str | None = None
) -> tuple[cfg.ConfigOpts, Settings]:
    """Read the configuration of this node, and our settings in it.

    :param config_files: these instead of those that Nova would find
    :param instances_path: this instead of the configured one
    :raises oslo_config.cfg.Error: a file cannot be read, or a value makes no
        sense
    :raises nova_imagecache.errors.Error: there is no such directory
    """
    conf = cfg.ConfigOpts()
    register_opts(conf)
    args = [f'--config-file={path}' for path in config_files]
    default_files = _default_files()
    try:
        conf(
            args,
            project=_PROJECT,
            prog=_PROGRAM,
            default_config_files=default_files,
        )
    except OSError as error:
        raise errors.Error(f'{error.filename}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        read = ', '.join(config_files or default_files)
        raise errors.Error(f'{read}: not UTF-8: {error}') from error
    if instances_path is not None:
        # A dollar sign in it is one, and no reference to another option.
        path = os.path.abspath(instances_path).replace('$', '$$')
        conf.set_override('instances_path', path)
    settings = read_settings(conf)
    if not os.path.isdir(settings.instances_path):
        found = '' if config_files or default_files else 'no nova.conf found; '
        raise errors.Error(
            f'{found}instances_path {settings.instances_path} is not a '
            'directory; name another with --instances-path, or the file that '
            'does with --config-file'
        )
    return conf, settings
