# SPDX-License-Identifier: Apache-2.0

"""``python -m nova_imagecache``: the start of the program (decision 0084)."""

from collections.abc import Sequence
import gc
from importlib import machinery
from importlib import util
import sys
import types

# What a shell says of one that SIGINT has ended.
_INTERRUPTED = 130

# oslo.config imports these for types of options that we have none of.
_IMPORTED_WHEN_USED = frozenset({'netaddr', 'rfc3986'})


class _Later:
    """Finds modules that do nothing until they are used."""

    @staticmethod
    def find_spec(
        name: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> machinery.ModuleSpec | None:
        """Find one of them, as Python itself does."""
        if name not in _IMPORTED_WHEN_USED:
            return None
        spec = machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = util.LazyLoader(spec.loader)
        return spec


def main() -> int:
    """Run the program in a process that ends with it.

    :returns: as :func:`nova_imagecache.cli.app.main`
    """
    # What is imported stays, and is not worth a look; NodeCommand.run() has
    # the collector begin.
    gc.disable()
    sys.meta_path.insert(0, _Later)
    try:
        from nova_imagecache.cli import app

        return app.main()
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        # Nor is what the end of the process frees anyway.
        gc.freeze()


if __name__ == '__main__':
    # What help and version call the program; cliff reads it when imported.
    sys.argv[0] = 'nova-imagecache'
    sys.exit(main())
