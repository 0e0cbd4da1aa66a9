# SPDX-License-Identifier: Apache-2.0

"""What is asked of the image service, and what its answers mean.

One try per call, in bounded time and memory: whoever asks decides when to ask
again. Each failure is a :class:`~nova_imagecache.heal.sources.State`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import functools
import json
import re
import time
from typing import Any
from typing import Protocol

from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import askers
from nova_imagecache.heal.sources import exchanges
from nova_imagecache.heal.sources import images
from nova_imagecache import names

State = sources.State

# To connect; and between two reads, so a server that says nothing is given up.
_TIMEOUT_SECONDS = (10, 30)
# All of an answer takes so long at most, and a second for each such part of
# it: a server that drips is no better than one that is down.
_PATIENCE_SECONDS = 60
_LEAST_RATE = 128 * 1024

_CHUNK = 64 * 1024
# A record of an image has some KiB.
_MOST_RECORD = 1024 * 1024

_CONTENT_RANGE = re.compile(
    r'bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)'
)
_UUID = re.compile(r'[0-9a-fA-F-]{32,36}')

_ABSENT = (404, 410)

# A deactivated image has its data, and administrators may read it.
_WITH_DATA = ('active', 'deactivated')

# By name, as these are of libraries that are imported by the client alone: of
# keystoneauth1, requests, urllib3 and Python. The first that fits counts.
_FAILURES = (
    (State.NOT_CONFIGURED, {'AuthPluginOptionsException', 'NoMatchingPlugin',
                            'MissingRequiredOptions', 'CatalogException'}),
    (State.TIMEOUT, {'Timeout', 'ConnectTimeout', 'TimeoutError',
                     'ReadTimeoutError', 'ConnectTimeoutError'}),
    (State.UNAUTHORIZED, {'Unauthorized', 'AuthPluginException',
                          'AuthorizationFailure', 'MissingAuthPlugin'}),
    (State.FORBIDDEN, {'Forbidden'}),
    (State.TRUNCATED, {'ChunkedEncodingError', 'ProtocolError',
                       'IncompleteRead'}),
    (State.UNREACHABLE, {'ConnectFailure', 'ConnectionError', 'SSLError',
                         'DiscoveryFailure', 'ServiceDiscoveryException',
                         'HttpServerError', 'OSError'}),
)  # fmt: skip

_ADVICE = {
    State.UNAUTHORIZED: 'see the user in [service_user] of nova.conf',
    State.FORBIDDEN: 'the user in [service_user] of nova.conf needs a role '
    'that may download it, such as admin',
    # Decision 0095.
    State.NOT_FOUND: 'it is deleted, or [service_user] of nova.conf may not '
    'see it: private images take the role admin, or one in context_is_admin '
    'of Glance; service alone does not do',
}


class ImageClient(Protocol):
    """An adapter of keystoneauth1, as the image proxy of openstacksdk is."""

    def get(self, url: str, **kwargs: Any) -> Any:
        """Give the answer to a request, as requests does."""
        ...


class ImageApi:
    """Asks the image service, and counts what comes.

    :ivar fetched: bytes in all answers so far
    """

    def __init__(
        self, client: ImageClient, watch: sources.Watch | None = None
    ) -> None:
        """Ask nothing yet."""
        self.fetched = 0
        self._client = client
        self._watch = watch or sources.Watch()
        self._images: dict[str, images.Image] = {}

    def image(self, uuid: str) -> images.Image:
        """Give what there is to know of an image; it is asked for once.

        :raises sources.Unavailable: it cannot be asked, or has no data
        """
        if uuid not in self._images:
            self._images[uuid] = self._image(uuid)
        return self._images[uuid]

    def _image(self, uuid: str) -> images.Image:
        if not _UUID.fullmatch(uuid):
            raise sources.Unavailable(
                State.UNKNOWN_IMAGE, f'{names.printable(uuid)} is no image ID'
            )
        with self._asked(f'/images/{uuid}', {}) as (answer, read):
            if answer.status_code not in _ABSENT or not self._sees_all():
                _check_status(answer, f'image {uuid}')
            else:
                raise _gone(uuid)
            body = b''.join(read(_MOST_RECORD, f'image {uuid}'))
        image = images.parse(uuid, body)
        if image.status not in _WITH_DATA:
            raise sources.Unavailable(
                State.NOT_FOUND,
                f'image {uuid} has no data that can be had: it is '
                f'{names.printable(image.status)}',
            )
        return image

    def _sees_all(self) -> bool:
        """Whether who asks would see any image that there is.

        See :mod:`nova_imagecache.heal.sources.askers`. And it is the image
        service that answers, and not what is in front of it and knows no such
        path.
        """
        try:
            who = exchanges.wait_for(
                lambda: askers.who_asks(self._client),
                _PATIENCE_SECONDS,
                self._watch,
            )
            if who is None:
                return False
            with self._asked(who.question, {}) as (answer, read):
                _check_status(answer, 'the list of images')
                body = b''.join(read(_MOST_RECORD, 'the list of images'))
            return who.sees_all(json.loads(body)['images'])
        except sources.Unavailable as error:
            if error.state is State.STOPPED:
                raise
        except (TimeoutError, ValueError, LookupError, TypeError):
            pass
        return False

    def part(
        self,
        image: images.Image,
        start: int,
        length: int,
        store: str | None = None,
    ) -> bytes:
        """Give some bytes of an image, and take no others.

        :param start: offset of the first; all of them are in the image
        :param store: which of its stores to prefer
        :raises sources.Unavailable: they are not to be had; with
            ``NO_RANGES``, not as a part
        """
        what = f'image {image.id}'
        headers = {'Range': f'bytes={start}-{start + length - 1}'}
        with self._asked(_path(image, store), headers) as (answer, read):
            code = answer.status_code
            if code in (200, 400, 416, 501):
                raise sources.Unavailable(
                    State.NO_RANGES,
                    f'{what} is in a store that gives no parts of it (its '
                    f'answer is {code})',
                )
            _check_status(answer, what, image.status)
            _check_range(answer, what, start, length, image.size)
            return b''.join(read(length, what, exact=True))

    def whole(
        self,
        image: images.Image,
        store: str | None = None,
        seconds: float | None = None,
    ) -> Iterator[bytes]:
        """Give all bytes of an image, in chunks and in order.

        :param seconds: for which this may take
        :raises sources.Unavailable: they are not to be had, end early, or
            come too slowly
        """
        what = f'image {image.id}'
        with self._asked(_path(image, store), {}) as (answer, read):
            _check_status(answer, what, image.status)
            if answer.status_code != 200:
                raise sources.Unavailable(
                    State.FAILED,
                    f'{what} comes with status {answer.status_code}',
                )
            yield from read(image.size, what, exact=True, seconds=seconds)

    @contextlib.contextmanager
    def _asked(
        self, path: str, headers: Mapping[str, str]
    ) -> Iterator[tuple[Any, '_Body']]:
        """Ask; give the answer, and what reads its body."""

        def ask() -> Any:
            return self._client.get(
                path,
                # So that bytes are those of the image.
                headers={'Accept-Encoding': 'identity', **headers},
                stream=True,
                # With debug on, that reads bodies.
                log=False,
                raise_exc=False,
                # It would take the token along.
                redirect=False,
                connect_retries=0,
                status_code_retries=0,
                timeout=_TIMEOUT_SECONDS,
            )

        exchange = exchanges.Exchange(self._watch)
        try:
            until = time.monotonic() + _PATIENCE_SECONDS
            try:
                answer = exchange.open(ask, until)
            except sources.Unavailable:
                raise
            except Exception as error:
                raise unavailable(error) from error
            yield answer, _Body(answer, exchange, self._count)
        finally:
            exchange.close()

    def _count(self, length: int) -> None:
        self.fetched += length


class _Body:
    """The body of an answer."""

    def __init__(
        self,
        answer: Any,
        exchange: exchanges.Exchange,
        count: Callable[[int], object],
    ) -> None:
        self._exchange = exchange
        self._count = count
        self._announced = answer.headers.get('Content-Length')
        raw = answer.raw
        # What waits for a whole chunk has the thread wait for one that drips;
        # urllib3 has the other since 2.1.
        self._read = getattr(raw, 'read1', None) or raw.read

    def __call__(
        self,
        most: int,
        what: str,
        exact: bool = False,
        seconds: float | None = None,
    ) -> Iterator[bytes]:
        """Give it in chunks.

        :param most: bytes that there may be; one more is refused
        :param exact: whether there have to be that many
        :param seconds: for which all of it may take
        """
        left, announced = most, self._announced
        longest: float = _PATIENCE_SECONDS + most // _LEAST_RATE
        longest = min(longest, seconds or longest)
        deadline = time.monotonic() + longest
        if exact and announced is not None and announced != str(most):
            raise sources.Unavailable(
                State.TRUNCATED,
                f'{what}: {names.printable(announced)} bytes are to come, and '
                f'not {most}',
            )
        while left:
            read = functools.partial(self._read, min(left, _CHUNK))
            try:
                if time.monotonic() > deadline:
                    raise TimeoutError
                chunk = self._exchange.call(read, deadline)
            except sources.Unavailable:
                raise
            except TimeoutError as error:
                raise sources.Unavailable(
                    State.TIMEOUT,
                    f'{what} comes too slowly: {most - left} bytes in '
                    f'{longest:.0f} s',
                ) from error
            except Exception as error:
                raise unavailable(error, what) from error
            if not chunk:
                break
            self._count(len(chunk))
            left -= len(chunk)
            yield chunk
        if exact and left:
            raise sources.Unavailable(
                State.TRUNCATED,
                f'{what} was cut off after {most - left} of {most} bytes',
            )
        if not exact and not left:
            raise sources.Unavailable(
                State.FAILED, f'{what}: the record of it has no end'
            )


def _gone(uuid: str) -> sources.Unavailable:
    return sources.Unavailable(
        State.GONE,
        f'image {uuid} is deleted in the image service, so what is made from '
        'it here is the last copy',
    )


def _path(image: images.Image, store: str | None) -> str:
    path = f'/images/{image.id}/file'
    return path if store is None else f'{path}?prefer={store}'


def _check_status(answer: Any, what: str, status: str = 'active') -> None:
    code = answer.status_code
    if code in (200, 206):
        return
    state = State.FAILED
    if code == 401:
        state = State.UNAUTHORIZED
    elif code == 403:
        deactivated = status == 'deactivated'
        state = State.DEACTIVATED if deactivated else State.FORBIDDEN
    elif code in (204, 404, 410):
        state = State.NOT_FOUND
    elif code in (408, 504):
        state = State.TIMEOUT
    elif code == 429 or 500 <= code < 600:
        state = State.UNREACHABLE
    after = answer.headers.get('Retry-After')
    notes = [_ADVICE.get(state, '')]
    if after:
        notes.append(f'it is to be asked again in {names.printable(after)} s')
    if 300 <= code < 400:
        notes.append('it sends elsewhere, which is not followed: see [glance]')
    raise sources.Unavailable(
        state,
        '; '.join(
            [f'{what}: the image service answers {code}', *filter(None, notes)]
        ),
    )


def _check_range(
    answer: Any, what: str, start: int, length: int, size: int
) -> None:
    """Refuse another part than the one that was asked for."""
    said = answer.headers.get('Content-Range', '')
    match = _CONTENT_RANGE.fullmatch(said.strip())
    if answer.status_code != 206 or match is None:
        raise sources.Unavailable(
            State.FAILED, f'{what}: the answer does not say which part it is'
        )
    first, last, total = match.groups()
    if (int(first), int(last)) != (start, start + length - 1):
        raise sources.Unavailable(
            State.TRUNCATED,
            f'{what}: bytes {first}-{last} came, and not {start}-'
            f'{start + length - 1}',
        )
    if total not in ('*', str(size)):
        raise sources.Unavailable(
            State.OTHER_BYTES,
            f'{what} has {total} bytes, and not {size} as its record says',
        )


def unavailable(
    error: Exception, what: str = 'the image service'
) -> sources.Unavailable:
    """Say what an error of the client means."""
    classes: set[str] = set()
    cause: BaseException | None = error
    # requests wraps what urllib3 says, as its first argument.
    for _depth in range(4):
        if cause is None:
            break
        classes |= {each.__name__ for each in type(cause).__mro__}
        inner = cause.args[0] if cause.args else None
        cause = inner if isinstance(inner, BaseException) else None
    state = next(
        (state for state, known in _FAILURES if known & classes), State.FAILED
    )
    said = ' '.join(str(error).split()) or type(error).__name__
    advice = _ADVICE.get(state)
    return sources.Unavailable(
        state,
        f'{what}: {names.printable(said[:300])}'
        + (f'; {advice}' if advice else ''),
    )
