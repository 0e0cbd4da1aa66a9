# SPDX-License-Identifier: Apache-2.0

"""What a compute driver imports; everything else may change.

::

    from nova_imagecache import hook

    hook.register_opts(CONF)  # after the driver's own options
    manager = hook.ImageCacheManager(CONF)
    report = manager.update(context, all_instances)
"""

from nova_imagecache.conf import register_opts
from nova_imagecache.errors import Changed
from nova_imagecache.errors import Error
from nova_imagecache.errors import FetchFailed
from nova_imagecache.errors import ImageRefused
from nova_imagecache.errors import InvalidOption
from nova_imagecache.errors import KnownDamage
from nova_imagecache.errors import LockBroken
from nova_imagecache.errors import Locked
from nova_imagecache.errors import Written
from nova_imagecache.fetch import cache_image
from nova_imagecache.integrity.checksum import read_stored_checksum
from nova_imagecache.integrity.checksum import verify_checksum
from nova_imagecache.integrity.checksum import write_stored_checksum
from nova_imagecache.manager import ImageCacheManager
from nova_imagecache.names import get_cache_fname
from nova_imagecache.report import FileReport
from nova_imagecache.report import Report

__all__ = [
    'Changed',
    'Error',
    'FetchFailed',
    'FileReport',
    'ImageCacheManager',
    'ImageRefused',
    'InvalidOption',
    'KnownDamage',
    'LockBroken',
    'Locked',
    'Report',
    'Written',
    'cache_image',
    'get_cache_fname',
    'read_stored_checksum',
    'register_opts',
    'verify_checksum',
    'write_stored_checksum',
]
