# SPDX-License-Identifier: Apache-2.0

"""Another host as a source, as Nova's remote file driver reaches it.

Its file of the same path is read, with ssh(1) as the user of the service and
without a password: as nova/virt/libvirt/volume/remotefs.py.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import re
import shlex

from nova_imagecache import children
from nova_imagecache.heal import pages
from nova_imagecache.heal import sources
from nova_imagecache import names

SCHEME = 'ssh://'

State = sources.State

# Nothing that begins with a dash, which ssh would take for an option.
_WHERE = re.compile(
    r'ssh://(?P<host>([A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9\[][\w.:\[\]-]*?)'
    r'(?P<path>/.*)?'
)

_CONNECT_SECONDS = 10
# 64 MiB at half a MiB per second.
_SECONDS = 120

# What ssh itself ends with.
_NO_CONNECTION = 255


class Ssh:
    """The same file on another host, a source."""

    name = 'ssh'
    cryptographic = False

    def __init__(self, url: str, watch: sources.Watch | None = None) -> None:
        """Take down where it is.

        :param url: ``ssh://HOST`` or ``ssh://USER@HOST``, and the path there
            if it is another one
        :raises ValueError: it is no such URL
        """
        found = _WHERE.fullmatch(url)
        if found is None:
            raise ValueError(f'{url!r} is not ssh://[USER@]HOST[/PATH]')
        self.fetched = 0
        self._watch = watch or sources.Watch()
        self._host = found['host'].replace('[', '').replace(']', '')
        self._path = found['path']

    def read(
        self, base: sources.Base, wanted: Sequence[sources.Wanted]
    ) -> Iterator[sources.Piece]:
        """Give each block as that host has it."""
        path = self._path or base.path
        for each in wanted:
            data = self._read(path, each)
            self.fetched += len(data)
            if len(data) != each.length:
                raise sources.Unavailable(
                    State.TRUNCATED,
                    f'{self._host} gave {len(data)} bytes of {path} and not '
                    f'{each.length}',
                )
            yield sources.Piece(each, data, f'{SCHEME}{self._host}{path}')

    def _read(self, path: str, wanted: sources.Wanted) -> bytes:
        first = wanted.start // pages.PAGE
        count = pages.count_of(wanted.length)
        there = (
            f'dd if={shlex.quote(path)} bs={pages.PAGE} skip={first} '
            f'count={count} status=none'
        )
        try:
            done = children.run(
                'ssh', '-o', 'BatchMode=yes', '-o',
                f'ConnectTimeout={_CONNECT_SECONDS}', '--', self._host, there,
                timeout=_SECONDS,
                look=self._watch.look,
                most=count * pages.PAGE,
            )  # fmt: skip
        except children.TimedOut as error:
            raise sources.Unavailable(
                State.TIMEOUT, f'{self._host}: no answer in {_SECONDS} s'
            ) from error
        except children.TooMuch as error:
            raise sources.Unavailable(
                State.TOO_LARGE,
                f'{self._host} gave more than the {count * pages.PAGE} bytes '
                'that it was asked for; see what its shell says at a login',
            ) from error
        except OSError as error:
            raise sources.Unavailable(
                State.FAILED, f'ssh cannot be run: {error.strerror}'
            ) from error
        if done.returncode:
            raise self._unavailable(done.returncode, done.stderr)
        return done.stdout[: wanted.length]

    def _unavailable(self, code: int, said: bytes) -> sources.Unavailable:
        text = said.decode(errors='replace')
        last = (text.strip().splitlines() or ['it failed'])[-1]
        state = State.NOT_FOUND
        if code == _NO_CONNECTION:
            denied = 'denied' in text.lower()
            state = State.UNAUTHORIZED if denied else State.UNREACHABLE
        return sources.Unavailable(
            state, f'{self._host}: {names.printable(last)}'
        )
