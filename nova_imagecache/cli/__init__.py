# SPDX-License-Identifier: Apache-2.0

"""The shell of operators: ``nova-imagecache``."""
