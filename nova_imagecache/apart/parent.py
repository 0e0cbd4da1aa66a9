# SPDX-License-Identifier: Apache-2.0

"""A pass in a process of its own, as a host starts, serves and ends it.

Under eventlet the threads here are green ones, and nothing here reads a file:
all that waits is a socket (decision 0088).
"""

from collections.abc import Callable
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any
from typing import TypeVar
import weakref

import msgspec

from nova_imagecache.apart import frames
from nova_imagecache.apart import lending
from nova_imagecache.cache import layouts
from nova_imagecache import children
from nova_imagecache import codes
from nova_imagecache.conf import Settings
from nova_imagecache import errors
from nova_imagecache.passes import reports
from nova_imagecache.scrub import background
from nova_imagecache.witnesses import instances
from nova_imagecache.witnesses import panel

LOG = logging.getLogger(__name__)

# -P: the current directory of the service is no place to find modules in.
_PROGRAM: tuple[str, ...] = ('-P', '-m', 'nova_imagecache.apart.child')

# For which a process that says no more may take to be gone.
_END_SECONDS = 10

# For which a file is set aside; and for which its turn is waited for.
_ASIDE_SECONDS = 120

_SEE = 'what it says is in the standard error output of this service'
_NEXT = 'nothing is half done, and the next pass goes on'


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a pass.

    :ivar report: has nothing but a problem if it did not come to its end
    :ivar seen: the scrub at its end; None if it did not come to that
    """

    report: reports.Report
    seen: background.Seen | None = None


_Answer = TypeVar('_Answer', frames.Told, frames.Judged)


class _Ended(Exception):
    """There is no report, and this is why."""


_passes: 'weakref.WeakSet[_Pass]' = weakref.WeakSet()


def _let_go() -> None:
    """Close the connections in a process that the host forked."""
    for each in list(_passes):
        each.let_go()


os.register_at_fork(after_in_child=_let_go)


class _Pass:
    """One pass, and the process that makes it.

    :ivar over: whether it has come to its end, whatever that was
    """

    def __init__(
        self,
        order: frames.Order,
        services: dict[frames.What, Callable[..., Any]],
        calls: lending.Calls,
    ) -> None:
        self.over = False
        self._order = order
        self._services = services
        self._calls = calls
        self._sending = threading.Lock()
        # Ours first; the other one only until the process has it.
        self._ends: list[socket.socket] = []
        self._stopped = ''
        self._child: subprocess.Popen[bytes] | None = None
        _passes.add(self)

    @property
    def hangs(self) -> bool:
        """Whether its process is still there."""
        return self._child is not None and self._child.poll() is None

    def stop(self, why: str = 'the pass was ended with this service') -> None:
        """End it, and wait for nothing."""
        self._stopped = why
        for end in self._ends[:1]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def let_go(self) -> None:
        """Close the connection here, and leave it to the other processes."""
        while self._ends:
            # Under eventlet to close it is a matter of the hub.
            with contextlib.suppress(OSError):
                os.close(self._ends.pop().detach())

    def make(self, kind: type[_Answer]) -> _Answer:
        """Have it made, and give what came of it.

        :param kind: what that is to be
        :raises _Ended: there is none
        """
        if not sys.executable:
            raise _Ended('no pass can be made: Python does not know its path')
        try:
            self._ends = [*socket.socketpair()]
        except OSError as error:
            raise _Ended(f'no pass can be made: {error}') from error
        ours, theirs = self._ends
        with ours:
            try:
                with theirs:
                    child = self._child = self._start(theirs)
                self._ends.remove(theirs)
                try:
                    told = self._converse(ours)
                finally:
                    with contextlib.suppress(OSError):
                        ours.shutdown(socket.SHUT_RDWR)
                    code = self._reap(child)
            finally:
                self.over = True
                self._ends.clear()
        if told is None:
            raise _Ended(self._why(code))
        if not isinstance(told, kind):
            raise _Ended(f'the pass has told something else: {told!r:.100}')
        return told

    @staticmethod
    def _start(stdin: socket.socket) -> 'subprocess.Popen[bytes]':
        try:
            return subprocess.Popen(
                [sys.executable, *_PROGRAM],
                stdin=stdin.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=background.errors_to(),
                env=background.environment(),
                cwd='/',
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise _Ended(f'no pass can be made: {error}') from error

    @staticmethod
    def _reap(child: 'subprocess.Popen[bytes]') -> int | None:
        # One that hangs on its storage may never be gone.
        try:
            return child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            children.end(child)
            return None

    def _why(self, code: int | None) -> str:
        if self._stopped:
            return self._stopped
        if code is None:
            return f'the pass does not answer any more; {_NEXT}'
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f'signal {-code}'
            memory = (
                ', as where there is no memory left'
                if code == -signal.SIGKILL
                else ''
            )
            return f'the pass was ended by {name}{memory}; {_NEXT}'
        return f'the pass ended with status {code}; {_SEE}; {_NEXT}'

    def _converse(
        self, connection: socket.socket
    ) -> frames.Told | frames.Judged | None:
        """Say what is wanted, and serve until there is a report.

        :returns: None if the other end went without one
        :raises _Ended: there will be none
        """
        try:
            if self._stopped:
                return None
            for part in frames.of_order(self._order):
                frames.send(connection, part)
                time.sleep(0)
            return self._hear(connection)
        except frames.Broken as error:
            raise _Ended(
                f'the pass cannot be understood: {error}; if nova-imagecache '
                'was upgraded, restart this service'
            ) from error
        except (OSError, RuntimeError) as error:
            LOG.debug('The pass cannot be served: %s', error)
            return None

    def _hear(
        self, connection: socket.socket
    ) -> frames.Told | frames.Judged | None:
        files: list[reports.FileReport] = []
        trash: list[reports.FileReport] = []
        while message := frames.receive(connection, frames.FromPass):
            if isinstance(message, frames.Rows):
                files += message.files
                trash += message.trash
            elif isinstance(message, frames.Told):
                report = dataclasses.replace(
                    message.report, files=tuple(files), trash=tuple(trash)
                )
                return frames.Told(report, message.seen)
            elif isinstance(message, frames.Judged):
                return message
            elif isinstance(message, frames.Ask):
                # What it asks for may take long, and may hang.
                threading.Thread(
                    target=self._answer,
                    args=(connection, message),
                    name='imagecache-lent',
                    daemon=True,
                ).start()
            elif isinstance(message, frames.Said):
                logging.getLogger(message.logger).log(
                    message.level, '%s', message.text
                )
            else:
                LOG.debug('The pass failed: %s', message.trace)
                raise _Ended(f'the pass failed: {message.error}')
            # What has come already would be taken at once, and green threads
            # would have no turn.
            time.sleep(0)
        return None

    def _answer(self, connection: socket.socket, ask: frames.Ask) -> None:
        # A broad net, as the functions and what they raise are the host's.
        try:
            call = self._services[ask.what]
            with self._calls.calling(lambda: self.over, ask.what):
                value = msgspec.to_builtins(call(*ask.arguments))
            reply = frames.pack(frames.Reply(ask.number, value))
        except Exception as error:
            text = str(error) or repr(error)
            reply = frames.pack(frames.Reply(ask.number, error=text))
        with contextlib.suppress(OSError), self._sending:
            connection.sendall(memoryview(reply))


class _Attempt:
    """What whoever began a pass waits for, and what came of it."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.outcome: Outcome | None = None


class Apart:
    """At most one pass at a time, which ends when this process does."""

    def __init__(self, assembly: panel.Assembly) -> None:
        """Start nothing yet.

        :param assembly: with what the host lends
        """
        self._assembly = assembly
        self._turn = threading.Lock()
        self._began = 0.0
        self._pass: _Pass | None = None
        self._attempt: _Attempt | None = None
        # The one that sets a file aside, or has done so last.
        self._aside: _Pass | None = None
        self._aside_turn = threading.Lock()
        self._calls = lending.Calls()

    def begin(
        self,
        settings: Settings,
        read_guests: Callable[[], instances.GuestList],
        tell: Callable[[Outcome], Outcome],
    ) -> None:
        """Begin a pass, and do not wait for it.

        :param read_guests: called once, here, if a pass is begun
        :param tell: called when it is over, in another thread; gives what is
            to be given to who waits
        :raises nova_imagecache.errors.Locked: one is at work
        :raises nova_imagecache.errors.Error: no thread can be started
        """
        if not self._turn.acquire(blocking=False):
            since = time.monotonic() - self._began
            raise errors.Locked(
                'the pass before is still at work, as it has been for '
                f'{since:.0f} s, and no other one is begun; if that does not '
                'end, look at the storage of instances_path'
            )
        self._began = time.monotonic()
        attempt = self._attempt = _Attempt()
        try:
            self._pass = self._prepared(settings, read_guests())
            threading.Thread(
                target=self._run,
                args=(
                    attempt,
                    self._pass,
                    layouts.Layout.of(settings).base,
                    tell,
                ),
                name='imagecache-pass',
                daemon=True,
            ).start()
        except BaseException as error:
            self._end(attempt)
            if isinstance(error, RuntimeError):
                # No thread can be started.
                raise errors.Error(f'no pass can be made: {error}') from error
            raise

    def _prepared(
        self,
        settings: Settings,
        guests: instances.GuestList,
        bad: frames.Bad | None = None,
    ) -> _Pass:
        services = lending.services(self._assembly)
        order = frames.Order(
            dataclasses.asdict(settings),
            guests,
            tuple(services),
            logging.getLogger('nova_imagecache').getEffectiveLevel(),
            bad,
        )
        return _Pass(order, services, self._calls)

    def set_aside(
        self, settings: Settings, name: str, young: bool
    ) -> str | None:
        """Have a bad base file moved to the trash, if nobody uses it.

        Also while a pass is at work, but one at a time. The thread that asks
        waits, and no longer than such a look takes on a large node: who wants
        to build a guest is better told that the file stays.

        :param young: whether it stays for 600 s after its last use
        :returns: why it stays; None if it is in the trash
        """
        bad = frames.Bad(name, young)
        one = self._prepared(settings, instances.GuestList(), bad)
        if not self._aside_turn.acquire(timeout=_ASIDE_SECONDS):
            return (
                'another file is being set aside, and has been for more than '
                f'{_ASIDE_SECONDS} s'
            )
        try:
            if self._aside is not None and self._aside.hangs:
                return (
                    'the process that was to set a file aside before hangs; '
                    'look at the storage of instances_path'
                )
            self._aside = one
            return self._make_in_time(one)
        finally:
            self._aside_turn.release()

    @staticmethod
    def _make_in_time(one: _Pass) -> str | None:
        late = threading.Timer(
            _ASIDE_SECONDS,
            one.stop,
            [f'looking who uses it has taken longer than {_ASIDE_SECONDS} s'],
        )
        late.daemon = True
        try:
            late.start()
            return one.make(frames.Judged).stays
        except (_Ended, RuntimeError) as error:
            # No thread can be started, in the latter case.
            return f'it could not be set aside: {error}'
        finally:
            late.cancel()

    def _run(
        self,
        attempt: _Attempt,
        one: _Pass,
        cache_dir: str,
        tell: Callable[[Outcome], Outcome],
    ) -> None:
        try:
            try:
                told = one.make(frames.Told)
                outcome = Outcome(told.report, told.seen)
            except _Ended as error:
                problem = codes.Problem(codes.Code.NO_PASS, str(error))
                outcome = Outcome(
                    reports.Report(cache_dir, problems=(problem,))
                )
            attempt.outcome = outcome
            attempt.outcome = tell(outcome)
        finally:
            self._end(attempt)

    def _end(self, attempt: _Attempt) -> None:
        self._pass = None
        # In this order: whoever has waited may begin another one.
        self._turn.release()
        attempt.over.set()

    def wait_for_report(self) -> reports.Report:
        """Wait for a pass that was begun, however long that takes.

        :raises LookupError: none was
        """
        report = self.wait()
        if report is None:
            raise LookupError('no pass was begun')
        return report

    def wait(self, seconds: float | None = None) -> reports.Report | None:
        """Wait for a pass that was begun.

        :param seconds: at most; None is for ever
        :returns: the report of the last one; None if there is none
        """
        attempt = self._attempt
        if attempt is None:
            return None
        attempt.over.wait(seconds)
        return None if attempt.outcome is None else attempt.outcome.report

    def stop(self) -> None:
        """End a pass that is at work, and do not wait for it."""
        for one in (self._pass, self._aside):
            if one is not None:
                one.stop()
