# SPDX-License-Identifier: Apache-2.0

"""A process that writes to base files, with the rights of Nova's own context.

Who heals is no part of nova-compute, and knows no Nova. It starts this one
where a base file is not its own, and tells it what to write on a socket, which
is the standard input.
"""

from collections.abc import Sequence
import contextlib
import shlex
import socket
import sys

import nova.conf
from nova import config
from nova import utils
from oslo_privsep import priv_context

from nova_imagecache.heal import rewriters
from nova_imagecache.heal import writer
from nova_imagecache.nova import privsep

CONF = nova.conf.CONF


def command() -> list[str]:
    """Give what starts it, with the configuration of this process."""
    files = [f'--config-file={path}' for path in CONF.config_file or ()]
    found = [f'--config-dir={path}' for path in CONF.config_dirs or ()]
    return [sys.executable, '-P', '-m', __name__, *files, *found]


def _write(name: str, inode: int, offset: int, data: bytes) -> None:
    try:
        with writer.ending_in_time():
            refusal, message = privsep.rewrite(name, inode, offset, data)
    # A broad net, as what the daemon raises may be anything.
    except Exception as error:
        raise writer.Refused(
            writer.Refusal.NOT_PERMITTED,
            f'the privsep daemon of Nova does not write it: {error!r}',
        ) from error
    if refusal is not None:
        raise writer.Refused(writer.Refusal(refusal), message)


def main(argv: Sequence[str]) -> None:
    """Write what is asked for, until the other end is closed.

    :param argv: options of Nova, that name its configuration files
    """
    config.parse_args(
        ['nova-compute', *argv], configure_db=False, init_rpc=False
    )
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    with contextlib.suppress(BrokenPipeError), socket.socket(fileno=0) as end:
        # Which a host under eventlet has switched off.
        end.setblocking(True)
        with end.makefile('rwb') as stream:
            rewriters.serve(stream, _write)


if __name__ == '__main__':
    main(sys.argv[1:])
