# SPDX-License-Identifier: Apache-2.0

"""The process that makes a pass for a host, which this is as a program.

Its standard input is the connection to the host. It ends when that is closed,
at whatever it is then, as if it were killed (decision 0088).
"""

from collections.abc import Sequence
from concurrent import futures
import gc
import itertools
import logging
import os
import socket
import threading
import traceback
from typing import Any

import msgspec

from nova_imagecache.apart import frames
from nova_imagecache.cache import layouts
from nova_imagecache import host
from nova_imagecache.outlets import figures
from nova_imagecache.passes import pipeline
from nova_imagecache.scrub import background
from nova_imagecache.scrub import pipe
from nova_imagecache.witnesses import libvirt_connection
from nova_imagecache.witnesses import panel

# For a reply of the host: some seconds more than it waits for libvirt, and far
# more than any daemon takes to come up.
_PATIENCE_SECONDS = 60


class Refused(Exception):
    """The host could not do what it was asked for, or says nothing."""


class Lender:
    """The host, as who asks for what it lends; any thread may ask."""

    def __init__(self, connection: socket.socket) -> None:
        """Ask nothing yet."""
        self._connection = connection
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._replies: dict[int, futures.Future[frames.Reply]] = {}
        # What it has not replied to in time, each with one such request.
        self._overdue: dict[str, int] = {}

    def tell(self, message: Any) -> None:
        """Send a message, or end with the host."""
        try:
            with self._sending:
                frames.send(self._connection, message)
        except OSError:
            os._exit(1)

    def listen(self) -> None:
        """Hand out replies until the host is gone, and end with it."""
        try:
            while reply := frames.receive(self._connection, frames.Reply):
                self._overdue = {
                    what: number
                    for what, number in self._overdue.items()
                    if number != reply.number
                }
                self._replies.pop(reply.number).set_result(reply)
        finally:
            # Whatever has happened: without replies nothing goes on.
            os._exit(1)

    def ask(
        self, what: frames.What, *arguments: str | int, kind: Any = Any
    ) -> Any:
        """Ask for something, and wait for the reply.

        While one such request hangs, no other one is made.

        :param kind: what the value is to be
        :raises Refused: it was not done
        """
        if what in self._overdue:
            raise Refused('it has not answered an earlier request yet')
        number = next(self._numbers)
        future: futures.Future[frames.Reply] = futures.Future()
        self._replies[number] = future
        self.tell(frames.Ask(number, what, arguments))
        try:
            reply = future.result(_PATIENCE_SECONDS)
        except TimeoutError:
            self._overdue = {**self._overdue, what: number}
            raise Refused(
                f'it has not answered within {_PATIENCE_SECONDS} s'
            ) from None
        if reply.error is not None:
            raise Refused(reply.error)
        return msgspec.convert(reply.value, kind)


class _Connection:
    """The host's connection to libvirt."""

    def __init__(self, lender: Lender) -> None:
        self._lender = lender

    def ask(self) -> libvirt_connection.Answer:
        try:
            answer: libvirt_connection.Answer = self._lender.ask(
                'libvirt', kind=libvirt_connection.Answer
            )
        except Refused as error:
            raise libvirt_connection.NoAnswer(str(error)) from error
        return answer


def borrow(lender: Lender, lent: Sequence[frames.What]) -> panel.Assembly:
    """Make witnesses with what a host lends, through a connection."""

    def read(path: str, offset: int, length: int) -> bytes:
        data: bytes = lender.ask('read', path, offset, length, kind=bytes)
        return data

    def touch(path: str) -> None:
        lender.ask('touch', path)

    def list_directory(path: str) -> list[host.Listed]:
        listed: list[host.Listed] = lender.ask(
            'list', path, kind=list[host.Listed]
        )
        return listed

    return panel.Assembly(
        host.Host(
            read_as_root=read if 'read' in lent else None,
            touch_as_root=touch if 'touch' in lent else None,
            list_as_root=list_directory if 'list' in lent else None,
        ),
        _Connection(lender) if 'libvirt' in lent else None,
    )


class _Handler(logging.Handler):
    """Has the host write to its log."""

    def __init__(self, lender: Lender) -> None:
        super().__init__()
        self._lender = lender

    def emit(self, record: logging.LogRecord) -> None:
        self._lender.tell(
            frames.Said(record.levelno, record.name, record.getMessage())
        )


def _hear(connection: socket.socket) -> frames.Order:
    """Wait for the order.

    :raises frames.Broken: it is none of ours
    """
    guests: list[Any] = []
    while True:
        message = frames.receive(connection, frames.FromHost)
        if message is None:
            # It has changed its mind.
            os._exit(1)
        if isinstance(message, frames.Guests):
            guests += message.guests
        elif isinstance(message, frames.Order):
            told = msgspec.structs.asdict(message)['guests']
            told = type(told)(tuple(guests), told.failures, told.with_devices)
            return msgspec.structs.replace(message, guests=told)


def make(connection: socket.socket) -> None:
    """Do what a host wants, and tell it what came of that."""
    lender = Lender(connection)
    try:
        try:
            order = _hear(connection)
            settings = pipe.parse(order.settings)
        except (frames.Broken, ValueError) as error:
            lender.tell(
                frames.Failed(
                    f'what it is to do cannot be made out ({error}); if '
                    'nova-imagecache was upgraded, restart this service'
                )
            )
            return
        logging.getLogger().addHandler(_Handler(lender))
        logging.getLogger('nova_imagecache').setLevel(order.level)
        threading.Thread(target=lender.listen, daemon=True).start()
        assembly = borrow(lender, order.lent)
        if (bad := order.bad) is not None:
            one = pipeline.Pass(settings, assembly=assembly)
            stays = one.set_aside(bad.name, bad.young)
            lender.tell(frames.Judged(stays))
            return
        report = pipeline.Pass(
            settings,
            assembly.instances(settings, order.guests),
            assembly=assembly,
        ).run()
        report = figures.kept(settings, report)
        seen = background.see(layouts.Layout.of(settings))
        for message in frames.of_report(frames.Told(report, seen)):
            lender.tell(message)
    # A broad net, as nobody else would tell the host.
    except Exception as error:
        text = str(error) or repr(error)
        lender.tell(
            frames.Failed(
                f'{type(error).__name__}: {text}', traceback.format_exc()
            )
        )


def main() -> None:
    """Run the program in a process that ends with it."""
    gc.disable()
    # Nobody whom this process starts is to have the connection.
    connection = socket.socket(fileno=os.dup(0))
    # Which a host under eventlet has switched off.
    connection.setblocking(True)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        make(connection)
    finally:
        # No thread is waited for: it may be at what never answers.
        os._exit(0)


if __name__ == '__main__':
    main()
