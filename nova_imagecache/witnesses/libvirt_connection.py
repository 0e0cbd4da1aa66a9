# SPDX-License-Identifier: Apache-2.0

"""How libvirt is asked for the domains of this host.

Through the connection of the host, or else by a process of its own, which
this module is as a program (decision 0050).
"""

from collections.abc import Callable
import dataclasses
import functools
import json
import os
import signal
import socket
import sys
import threading
from typing import Any
from typing import Protocol
import urllib.parse

import msgspec

from nova_imagecache import children
from nova_imagecache import coalesce
from nova_imagecache.witnesses import domain_xml

#: How long to wait for the answer to all questions of a pass.
DEADLINE_SECONDS = 10

# -P: the current directory of the service is no place to find modules in.
_PROGRAM = ('-P', '-m', 'nova_imagecache.witnesses.libvirt_connection')

# How often domains that vanished have the others listed again.
_ROUNDS = 5

# So that a connection that is dead is told from a libvirt that is slow.
_KEEPALIVE_SECONDS = 2
_KEEPALIVE_COUNT = 3

# include/libvirt/virterror.h and libvirt-domain.h. The first two are needed
# where libvirt is the host's, and not imported here.
_ERR_NO_DOMAIN = 42
_XML_INACTIVE = 2

_NO_MODULE = (
    'there is no Python module libvirt; install python3-libvirt, or leave '
    'libvirt out of [image_cache]/witnesses'
)


class NoAnswer(Exception):
    """Libvirt does not tell which domains this host has, for this reason."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a libvirt says of itself and of its domains.

    :ivar uri: of the connection
    :ivar hostname: of the libvirt, where the URI leads to another host, or
        seems to
    """

    uri: str
    hostname: str | None
    domains: tuple[domain_xml.Domain, ...]


def _is_missing(error: Exception) -> bool:
    """Whether an error of libvirt means that there is no such domain."""
    code = getattr(error, 'get_error_code', None)
    return code is not None and code() == _ERR_NO_DOMAIN


def _volume_path(connection: Any, pool: str, volume: str) -> str | None:
    """Give the path of a volume, or None where libvirt does not tell.

    The pool may be gone, or not started, and so may be all that knows pools.
    """
    # Looked up, one after the other, for the same reason as domains.
    try:
        found = connection.storagePoolLookupByName(pool)
        path: str = found.storageVolLookupByName(volume).path()
    except Exception:
        return None
    return path


def _read_domain(
    connection: Any, uuid: str, volume_path: domain_xml.VolumePath
) -> domain_xml.Domain:
    # Looked up, although it was listed: under eventlet the connection is a
    # proxy that lets other green threads run, which what it lists is not.
    listed = connection.lookupByUUIDString(uuid)
    try:
        domain = domain_xml.read_domain(listed.XMLDesc(0), volume_path)
        if listed.ID() == -1:
            return domain
        # It runs, and may need something else when it is started anew.
        defined = domain_xml.read_domain(
            listed.XMLDesc(_XML_INACTIVE), volume_path
        )
    except domain_xml.MalformedDomain as error:
        raise NoAnswer(f'domain {uuid} cannot be read: {error}') from error
    return domain_xml.join(domain, defined)


def read_domains(connection: Any) -> list[domain_xml.Domain]:
    """Read all domains, those that run and those that are only defined.

    When one vanishes meanwhile, all are listed again: a domain of another
    name may have taken its disks over.

    :param connection: an open virConnect, or the host's proxy of one
    :raises Exception: whatever libvirt raises
    """
    volume_path = functools.cache(functools.partial(_volume_path, connection))
    for _round in range(_ROUNDS):
        domains = []
        vanished = False
        for listed in connection.listAllDomains(0):
            try:
                uuid = listed.UUIDString()
                domains.append(_read_domain(connection, uuid, volume_path))
            except Exception as error:
                if not _is_missing(error):
                    raise
                vanished = True
        if not vanished:
            return domains
    raise NoAnswer('its domains come and go faster than they are read')


def read_answer(connection: Any) -> Answer:
    """Ask all there is to ask.

    :raises Exception: whatever libvirt raises
    """
    uri = connection.getURI()
    hostname = None
    if urllib.parse.urlsplit(uri).netloc:
        hostname = connection.getHostname()
    return Answer(uri, hostname, tuple(read_domains(connection)))


def check_host(answer: Answer, host: str) -> None:
    """See that this is the libvirt that has the guests of this host.

    The one of a session has those of one user (decision 0051); an empty URI
    means it to all but root.

    :param host: what the host is called in its options
    :raises NoAnswer: it is another one
    """
    if urllib.parse.urlsplit(answer.uri).path.endswith('/session'):
        raise NoAnswer(
            f'{answer.uri} is the session of a user, and has no guests of '
            'this host'
        )
    if answer.hostname is None:
        return
    labels = [
        name.partition('.')[0].lower()
        for name in (answer.hostname, socket.gethostname(), host)
    ]
    if labels[0] not in labels[1:]:
        raise NoAnswer(
            f'it is the libvirt of host {answer.hostname}, and this is '
            f'{socket.gethostname()}'
        )


class Connection(Protocol):
    """Whom to ask, in the place of a process of its own."""

    def ask(self) -> Answer:
        """Ask, and wait for the answer.

        :raises NoAnswer: there is none
        """
        ...


class HostConnection:
    """The connection that a host lends.

    Keep it from pass to pass: it remembers a question that hangs, and asks no
    second one meanwhile. Any thread may ask; one question is asked at a time,
    and answers all who wait.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        """Ask nothing yet.

        :param connect: gives an open connection, or raises anything, as
            ``Host.get_connection`` in nova/virt/libvirt/host.py
        """
        self._connect = connect
        self._answer = coalesce.Coalesced(self._ask)
        self._overdue: threading.Thread | None = None

    def ask(self) -> Answer:
        """Ask, and wait for the answer as long as the deadline allows.

        Twice as long where somebody else is asking already.

        :raises NoAnswer: there is none, whatever the host or libvirt raised
        """
        try:
            return self._answer(2 * DEADLINE_SECONDS)
        except TimeoutError:
            raise NoAnswer(
                f'others have been asking it for {2 * DEADLINE_SECONDS} s'
            ) from None

    def _ask(self) -> Answer:
        if self._overdue is not None and self._overdue.is_alive():
            raise NoAnswer('it has not answered an earlier question yet')
        answers: list[Answer] = []
        problems: list[BaseException] = []

        def ask() -> None:
            try:
                answers.append(read_answer(self._connect()))
            except BaseException as error:
                problems.append(error)

        thread = threading.Thread(
            target=ask, name='imagecache-libvirt', daemon=True
        )
        thread.start()
        thread.join(DEADLINE_SECONDS)
        if problems:
            (problem,) = problems
            raise NoAnswer(str(problem) or repr(problem)) from problem
        if not answers:
            self._overdue = thread
            raise NoAnswer(f'it has not answered within {DEADLINE_SECONDS} s')
        return answers[0]


def _decode(output: bytes) -> Answer:
    values = json.loads(output)
    if 'error' in values:
        raise NoAnswer(values['error'])
    return msgspec.convert(values, Answer)


def ask(uri: str) -> Answer:
    """Let a process ask, and wait as long as the deadline allows.

    :raises NoAnswer: there is none
    :raises OSError: the process cannot be started
    """
    if not sys.executable:
        raise NoAnswer('it cannot be asked: Python does not know its path')
    try:
        # Away from any terminal: ssh would ask for a password there.
        done = children.run(
            sys.executable, *_PROGRAM, uri, timeout=DEADLINE_SECONDS
        )
    except children.TimedOut:
        raise NoAnswer(
            f'it has not answered within {DEADLINE_SECONDS} s'
        ) from None
    try:
        return _decode(done.stdout)
    except (ValueError, TypeError) as error:
        *_lines, last = [b'', *done.stderr.splitlines()]
        raise NoAnswer(
            'the process that asks it ended with status '
            f'{done.returncode}: {os.fsdecode(last)}'
        ) from error


def _authenticate(credentials: list[Any], _opaque: object) -> int:
    """Have nothing to say but what is in auth.conf, as Nova."""
    return -1 if credentials else 0


def _open(uri: str) -> Any:
    """Open a connection that can only read, as Nova opens its own."""
    try:
        import libvirt
    except ImportError as error:
        raise NoAnswer(_NO_MODULE) from error
    # It would print each error on its own.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def run_events() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run_events, daemon=True).start()
    kinds = [
        libvirt.VIR_CRED_AUTHNAME,
        libvirt.VIR_CRED_ECHOPROMPT,
        libvirt.VIR_CRED_REALM,
        libvirt.VIR_CRED_PASSPHRASE,
        libvirt.VIR_CRED_NOECHOPROMPT,
        libvirt.VIR_CRED_EXTERNAL,
    ]
    connection = libvirt.openAuth(
        uri, [kinds, _authenticate, None], libvirt.VIR_CONNECT_RO
    )
    try:
        connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        # A driver in this process needs none.
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
    return connection


def _main(uri: str) -> None:
    # Whoever has asked may be gone by then, and end this no more.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(2 * DEADLINE_SECONDS)
    values: dict[str, Any]
    try:
        values = dataclasses.asdict(read_answer(_open(uri)))
    except Exception as error:
        values = {'error': str(error) or repr(error)}
    json.dump(values, sys.stdout, default=sorted)
    sys.stdout.flush()
    # The thread with the events is inside libvirt, and stays there.
    os._exit(0)


if __name__ == '__main__':
    _main(sys.argv[1])
