# SPDX-License-Identifier: Apache-2.0

"""The options in nova.conf, and their values as one checked object."""

from nova_imagecache.conf.opts import list_opts
from nova_imagecache.conf.opts import register_opts
from nova_imagecache.conf.settings import read_paths
from nova_imagecache.conf.settings import read_settings
from nova_imagecache.conf.settings import Settings

__all__ = [
    'Settings',
    'list_opts',
    'read_paths',
    'read_settings',
    'register_opts',
]
