# SPDX-License-Identifier: Apache-2.0

"""The fetch path: images into the cache, and disks out of it."""
