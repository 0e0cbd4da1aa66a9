# SPDX-License-Identifier: Apache-2.0

"""An image cache manager for libvirt compute nodes.

Drivers import :mod:`nova_imagecache.hook`; nothing else is an interface.
"""
