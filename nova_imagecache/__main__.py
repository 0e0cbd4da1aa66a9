# SPDX-License-Identifier: Apache-2.0

"""``python -m nova_imagecache``: the shell, where it is not on PATH."""

import sys

# What help and version call the program.
sys.argv[0] = 'nova-imagecache'

from nova_imagecache.cli import app  # noqa: E402 after argv, which it reads

sys.exit(app.main())
