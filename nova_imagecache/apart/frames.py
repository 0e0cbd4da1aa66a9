# SPDX-License-Identifier: Apache-2.0

"""What a host and the process that makes its pass say to each other.

Each message is a frame: its length in bytes, as four of them, and so much
JSON. Names of files that are not UTF-8 come through as they are.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import json
import socket
import struct
from typing import Any
from typing import Literal

import msgspec

from nova_imagecache import codes
from nova_imagecache.passes import reports
from nova_imagecache.scrub import background
from nova_imagecache.witnesses import instances

#: Bytes of a frame at most: whoever announces more is not the other end.
LIMIT = 2**28

#: Guests or files of one message: more would keep a host from all else while
#: they are made out.
PART = 500

_LENGTH = struct.Struct('>I')
_CHUNK = 2**18

#: What only the host can do.
What = Literal['libvirt', 'read', 'touch', 'list']


class Broken(Exception):
    """The other end does not say what it should."""


class _Message(
    msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True
):
    pass


class Guests(_Message, frozen=True):
    """Some of the guests of an order."""

    guests: tuple[instances.Guest, ...]


class Bad(_Message, frozen=True):
    """A base file that is known to be bad.

    :ivar name: in the cache
    :ivar young: whether it stays for 600 s after its last use
    """

    name: str
    young: bool


class Order(_Message, frozen=True):
    """What kind of pass the host wants, once its guests are told.

    :ivar settings: the values of all fields, see ``scrub.pipe``
    :ivar guests: without the guests themselves
    :ivar lent: what the host does for the pass
    :ivar level: of what is to be logged
    :ivar bad: the one file that is to be set aside, in the place of a pass
    """

    settings: dict[str, Any]
    guests: instances.GuestList
    lent: tuple[What, ...]
    level: int
    bad: Bad | None = None


class Ask(_Message, frozen=True):
    """A request for what only the host can do.

    :ivar number: which the reply has too
    :ivar arguments: as of the function in ``host.Host``; none for libvirt
    """

    number: int
    what: What
    arguments: tuple[str | int, ...]


class Reply(_Message, frozen=True):
    """What came of a request: a value, or an error in words."""

    number: int
    value: Any = None
    error: str | None = None


class Said(_Message, frozen=True):
    """Something for the log of the host."""

    level: int
    logger: str
    text: str


class Rows(_Message, frozen=True):
    """Some of the files of a report."""

    files: tuple[reports.FileReport, ...] = ()
    trash: tuple[reports.FileReport, ...] = ()


class Told(_Message, frozen=True):
    """The report, without its files, and the scrub as it is now."""

    report: reports.Report
    seen: background.Seen


class Judged(_Message, frozen=True):
    """What became of the file that was to be set aside.

    :ivar stays: why it does; None if it is in the trash
    """

    stays: str | None


class Failed(_Message, frozen=True):
    """There is no report, and why.

    :ivar trace: for who wants to mend this package
    """

    error: str
    trace: str = ''


#: What a host may hear, and what the other process may.
FromPass = Ask | Said | Rows | Told | Judged | Failed
FromHost = Guests | Order | Reply


def of_order(order: Order) -> Iterator[_Message]:
    """Give the messages that make up an order."""
    guests = order.guests.guests
    for part in _parts(guests):
        yield Guests(part)
    bare = dataclasses.replace(order.guests, guests=())
    yield msgspec.structs.replace(order, guests=bare)


def of_report(told: Told) -> Iterator[_Message]:
    """Give the messages that make up a report."""
    report = told.report
    for part in _parts(report.files):
        yield Rows(files=part)
    for part in _parts(report.trash):
        yield Rows(trash=part)
    bare = dataclasses.replace(report, files=(), trash=())
    yield Told(bare, told.seen)


def _parts(items: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(items), PART):
        yield tuple(items[start : start + PART])


def _problem_to_list(problem: Any) -> list[Any]:
    if not isinstance(problem, codes.Problem):
        raise NotImplementedError(f'{type(problem)} cannot be sent')
    code = problem.code.name
    return [code, str(problem), problem.subject, list(problem.guests)]


def _problem_from_list(_kind: type, value: Any) -> codes.Problem:
    code, text, subject, guests = msgspec.convert(
        value, tuple[str, str, str, tuple[str, ...]]
    )
    if code not in codes.Code.__members__:
        raise ValueError(f'the code {code} is unknown')
    return codes.Problem(codes.Code[code], text, subject, guests)


def pack(message: _Message) -> bytes:
    """Make a frame of a message.

    :raises ValueError: it is too long
    """
    # No other encoder has a way to write half of a surrogate pair.
    body = json.dumps(
        msgspec.to_builtins(message, enc_hook=_problem_to_list),
        separators=(',', ':'),
    ).encode('ascii')
    if len(body) > LIMIT:
        raise ValueError(f'{len(body)} bytes are too many for a message')
    return _LENGTH.pack(len(body)) + body


def send(connection: socket.socket, message: _Message) -> None:
    """Send a message; only one thread may be at it.

    :raises OSError: the other end is gone
    :raises ValueError: it is too long
    """
    # A view, as what is sent in pieces is copied for each of them otherwise.
    connection.sendall(memoryview(pack(message)))


def receive(connection: socket.socket, kinds: Any) -> Any:
    """Wait for the next message.

    :param kinds: those that may come, one of them or their union
    :returns: None if the other end is gone
    :raises Broken: it is none of them, or cut short
    """
    head = _read(connection, _LENGTH.size)
    if not head:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > LIMIT:
        raise Broken(f'a message of {length} bytes is announced')
    body = _read(connection, length)
    try:
        return msgspec.convert(
            json.loads(body), kinds, dec_hook=_problem_from_list
        )
    except (ValueError, RecursionError) as error:
        raise Broken(f'a message cannot be made out: {error}') from error


def _read(connection: socket.socket, length: int) -> bytes:
    """Read so many bytes, or none where there is nothing any more.

    :raises Broken: there are fewer
    """
    # Not reserved before they are there: anything can be announced.
    found = bytearray()
    while len(found) < length:
        try:
            data = connection.recv(min(_CHUNK, length - len(found)))
        except OSError:
            data = b''
        if not data:
            break
        found += data
    if found and len(found) < length:
        raise Broken('a message is cut short')
    return bytes(found)
