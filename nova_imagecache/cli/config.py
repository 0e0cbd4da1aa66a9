# SPDX-License-Identifier: Apache-2.0

"""Finding nova.conf as Nova finds it."""

from collections.abc import Sequence
import contextlib
import difflib
import logging
import os
import re

from oslo_config import cfg

from nova_imagecache.conf import list_opts
from nova_imagecache.conf import read_settings
from nova_imagecache.conf import register_opts
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache import names

LOG = logging.getLogger(__name__)

GROUP = 'image_cache'

_LOCATION = re.compile(
    r'(?P<option>\w+) from LocationInfo\(.*?detail=[\'"](?P<file>.*?)[\'"]\)'
)

# How much of two names is the same, from 0 to 1.
_ALIKE = 0.85

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


def _written(path: str) -> set[str]:
    """Give the names of what a file has in our section."""
    sections: dict[str, dict[str, list[str]]] = {}
    with contextlib.suppress(OSError, ValueError, cfg.ParseError):
        cfg.ConfigParser(path, sections).parse()
    return {*sections.get(GROUP, ())}


def _place(found: re.Match[str]) -> str:
    """Say where an option is, with the line if it is there by that name."""
    option, path = found['option'], found['file']
    line = re.compile(rf'{option}\s*[=:]')
    numbers = []
    with contextlib.suppress(OSError, ValueError), open(path) as file:
        numbers = [
            number for number, text in enumerate(file, 1) if line.match(text)
        ]
    # The last one wins.
    place = f'{path}, line {numbers[-1]},' if numbers else path
    return f'{option} from {place}'


def _warn_of_misspelt(config_files: Sequence[str]) -> None:
    """Say which options look like one of ours, and are none.

    What looks like none of them may be of another release of Nova.
    """
    known = {
        name
        for group, options in list_opts()
        if group == GROUP
        for option in options
        for name in (
            option.dest,
            *(each.name for each in option.deprecated_opts if each.name),
        )
    }
    for path in config_files:
        for name in sorted(_written(path) - known):
            near = difflib.get_close_matches(name, known, 1, _ALIKE)
            if near:
                LOG.warning(
                    '[N20] %(path)s: [%(group)s] has no option %(name)s; did '
                    'you mean %(near)s?',
                    {
                        'path': path,
                        'group': GROUP,
                        'name': names.printable(name),
                        'near': near[0],
                    },
                )


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
    _warn_of_misspelt(conf.config_file or ())
    if instances_path is not None:
        # A dollar sign in it is one, and no reference to another option.
        path = os.path.abspath(instances_path).replace('$', '$$')
        conf.set_override('instances_path', path)
    try:
        settings = read_settings(conf)
    except cfg.ConfigFileValueError as error:
        # oslo.config shows an object of its own where the file should be.
        text = _LOCATION.sub(_place, str(error))
        raise errors.Error(text) from error
    if not os.path.isdir(settings.instances_path):
        found = '' if config_files or default_files else 'no nova.conf found; '
        raise errors.Error(
            f'{found}instances_path {settings.instances_path} is not a '
            'directory; name another with --instances-path, or the file that '
            'does with --config-file'
        )
    return conf, settings
