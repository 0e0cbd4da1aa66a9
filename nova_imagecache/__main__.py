# SPDX-License-Identifier: Apache-2.0

"""``python -m nova_imagecache``: the shell, where it is not on PATH."""

import sys

from nova_imagecache.cli import app

sys.exit(app.main())
