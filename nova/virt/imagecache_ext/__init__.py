# SPDX-License-Identifier: Apache-2.0

"""What ``compute_driver = imagecache_ext.LibvirtDriver`` makes Nova import.

Nova imports ``nova.virt.<compute_driver>`` and nothing else, so these lines
have to be there (``load_compute_driver`` in nova/virt/driver.py).
"""

from nova_imagecache.nova.driver import LibvirtDriver

__all__ = ['LibvirtDriver']
