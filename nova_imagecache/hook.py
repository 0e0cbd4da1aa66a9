# SPDX-License-Identifier: Apache-2.0

"""What a compute driver imports; everything else may change.

::

    from nova_imagecache import hook

    hook.register_opts(CONF)  # after the driver's own options
    manager = hook.ImageCacheManager(CONF)
    report = manager.update(context, all_instances)
"""

from nova_imagecache.clocks import Clock
from nova_imagecache.clocks import Instant
from nova_imagecache.codes import Code
from nova_imagecache.codes import Problem
from nova_imagecache.codes import Severity
from nova_imagecache.conf import register_opts
from nova_imagecache.content.knowledge import Verdict
from nova_imagecache.content.ledgers import BadRange
from nova_imagecache.content.ledgers import Damage
from nova_imagecache.content.ledgers import Trust
from nova_imagecache.content.sidecars import read_stored_checksum
from nova_imagecache.content.soundness import Answer
from nova_imagecache.content.soundness import Soundness
from nova_imagecache.errors import Blind
from nova_imagecache.errors import Changed
from nova_imagecache.errors import Error
from nova_imagecache.errors import FetchFailed
from nova_imagecache.errors import ImageRefused
from nova_imagecache.errors import InvalidOption
from nova_imagecache.errors import KnownDamage
from nova_imagecache.errors import LockBroken
from nova_imagecache.errors import Locked
from nova_imagecache.errors import NotNow
from nova_imagecache.errors import Written
from nova_imagecache.fetch.caching import Fetch
from nova_imagecache.host import Connect
from nova_imagecache.host import ListAsRoot
from nova_imagecache.host import Listed
from nova_imagecache.host import ReadAsRoot
from nova_imagecache.host import TouchAsRoot
from nova_imagecache.manager import cache_image
from nova_imagecache.manager import GetInstances
from nova_imagecache.manager import ImageCacheManager
from nova_imagecache.names import get_cache_fname
from nova_imagecache.names import Kind
from nova_imagecache.passes.decide import Action
from nova_imagecache.passes.reports import FileReport
from nova_imagecache.passes.reports import Report
from nova_imagecache.scrub.checksums import verify_checksum
from nova_imagecache.scrub.checksums import write_stored_checksum
from nova_imagecache.scrub.courses import Progress
from nova_imagecache.scrub.schedule import Coverage
from nova_imagecache.witnesses.exposure import Exposure
from nova_imagecache.witnesses.instances import BlockDeviceMappings
from nova_imagecache.witnesses.qcow2_map import Effect
from nova_imagecache.witnesses.qcow2_map import Extent
from nova_imagecache.witnesses.vetoing import Reason
from nova_imagecache.witnesses.vetoing import Veto

__all__ = [
    'Action',
    'Answer',
    'BadRange',
    'Blind',
    'BlockDeviceMappings',
    'Changed',
    'Clock',
    'Code',
    'Connect',
    'Coverage',
    'Damage',
    'Effect',
    'Error',
    'Exposure',
    'Extent',
    'Fetch',
    'FetchFailed',
    'FileReport',
    'GetInstances',
    'ImageCacheManager',
    'ImageRefused',
    'Instant',
    'InvalidOption',
    'Kind',
    'KnownDamage',
    'ListAsRoot',
    'Listed',
    'LockBroken',
    'Locked',
    'NotNow',
    'Problem',
    'Progress',
    'ReadAsRoot',
    'Reason',
    'Report',
    'Severity',
    'Soundness',
    'TouchAsRoot',
    'Trust',
    'Verdict',
    'Veto',
    'Written',
    'cache_image',
    'get_cache_fname',
    'read_stored_checksum',
    'register_opts',
    'verify_checksum',
    'write_stored_checksum',
]
