# SPDX-License-Identifier: Apache-2.0

"""What a host lends to the processes of its passes, and what it is at."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import threading
from typing import Any

from nova_imagecache.apart import frames
from nova_imagecache import errors
from nova_imagecache.witnesses import panel


def services(
    assembly: panel.Assembly,
) -> dict[frames.What, Callable[..., Any]]:
    """Give what the host lends, so that what comes of it can be sent."""
    lent = assembly.host
    connection = assembly.connection
    found: dict[frames.What, Callable[..., Any]] = {}
    if connection is not None:
        found['libvirt'] = connection.ask
    if lent.read_as_root is not None:
        found['read'] = lent.read_as_root
    if (touch := lent.touch_as_root) is not None:
        found['touch'] = lambda path: touch(path) and None
    if (list_as_root := lent.list_as_root) is not None:
        found['list'] = lambda path: [*list_as_root(path)]
    return found


class Calls:
    """What the host is at for passes, of which some may be over.

    What hangs takes a thread of the host, and is waited for by a pass for a
    while only. So there is one thread for each kind of request, and not one
    more with each pass.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[tuple[Callable[[], bool], frames.What]] = []

    @contextlib.contextmanager
    def calling(
        self, is_over: Callable[[], bool], what: frames.What
    ) -> Iterator[None]:
        """Be at a request of a pass.

        :param is_over: whether that pass is
        :raises nova_imagecache.errors.NotNow: the host is still at one like
            that for an earlier pass
        """
        entry = is_over, what
        with self._lock:
            if any(over() and its == what for over, its in self._open):
                raise errors.NotNow('it has not answered an earlier pass yet')
            self._open.append(entry)
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(entry)
