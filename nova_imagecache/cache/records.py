# SPDX-License-Identifier: Apache-2.0

"""Our own files: JSON that knows its kind and version, and checks itself.

A record is one JSON object on one line, and what it describes, if anything::

    {"kind": "ledger", "version": 2, "sha256": "...", "sealed": {
        "body": {...}, "payload": {"length": 32, "sha256": "..."}}}
    32 bytes

where the outer ``sha256`` is that of ``sealed``, serialised with sorted keys
and without white space. So the line can be read, and believed, without the
payload (decision 0014). The digests tell a torn or altered record from a sound
one; they are no protection against anybody.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import logging
import os
import re
from typing import Any
from typing import Generic
from typing import TypeVar

import msgspec

from nova_imagecache.cache import identity
from nova_imagecache.cache import layouts
from nova_imagecache.cache import publish
from nova_imagecache import errors
from nova_imagecache import names

LOG = logging.getLogger(__name__)

#: What :func:`set_aside` appends.
DAMAGED_SUFFIX = '.damaged'

Body = TypeVar('Body')
T = TypeVar('T')
Values = dict[str, Any]

#: Makes the body of a record one of the next version: a pure function.
Convert = Callable[[Values], Values]

#: Has what is many times in a body be one object; it changes the body.
Condense = Callable[[Body], None]

# Whatever a later version is like, its line begins so (decision 0067).
_HEAD = re.compile(
    rb'\{"kind": "(?P<kind>\w+)", "version": (?P<version>[0-9]+)\b'
)
_HEAD_SIZE = 100
_SEALED = re.compile(
    _HEAD.pattern + rb', "sha256": "[0-9a-f]{64}", "sealed": '
)

# A large record is one line.
_BUFFER = 2**20


class _Payload(msgspec.Struct, frozen=True):
    length: int
    sha256: str


class _Sealed(msgspec.Struct, frozen=True):
    body: dict[str, Any]
    payload: _Payload


class _Record(msgspec.Struct, frozen=True):
    kind: str
    version: int
    sha256: str
    sealed: dict[str, Any]


class _SealedBody(msgspec.Struct, Generic[Body], frozen=True):
    body: Body
    payload: _Payload


class _RecordOf(msgspec.Struct, Generic[Body], frozen=True):
    """One of this version, with the body as that type has it."""

    sha256: str
    sealed: _SealedBody[Body]


def _serialised(sealed: dict[str, Any]) -> bytes:
    return json.dumps(sealed, sort_keys=True, separators=(',', ':')).encode()


_JSON = msgspec.json.Encoder(order='sorted')
_BINARY = msgspec.msgpack.Encoder()

# What msgspec writes in another way than the standard library: numbers with an
# exponent, which are followed by one of these, and small ones without.
_EXPONENT = re.compile(rb'e[-0-9][0-9]{0,3}[,\]}]')
_SMALL = b'0.0000'

# And what is no number, and null to it. Of the doubles of MessagePack, those
# with each bit of the exponent set; some integers look so too.
_NO_NUMBER = re.compile(rb'\xcb[\x7f\xff][\xf0-\xff]')


def _serialised_fast(sealed: dict[str, Any]) -> bytes | None:
    """Serialise by msgspec what comes out the same (decision 0062).

    :param sealed: may hold what msgspec makes plain values of, with keys that
        are strings, and no sets
    :returns: None where it may be another text
    """
    try:
        data = _JSON.encode(sealed)
        # A name may look like such a number, and then it takes longer.
        if (
            not data.isascii()
            or b'\x7f' in data
            or _SMALL in data
            or _EXPONENT.search(data)
            or (b'null' in data and _NO_NUMBER.search(_BINARY.encode(sealed)))
        ):
            return None
    except (OverflowError, RecursionError, TypeError, ValueError):
        return None
    return data


def _written(sealed: dict[str, Any]) -> bytes:
    """Serialise likewise, whatever it is; each release gives this text."""
    fast = _serialised_fast(sealed)
    return _serialised(msgspec.to_builtins(sealed)) if fast is None else fast


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _record_in(line: bytes) -> _Record:
    try:
        return msgspec.json.decode(line, type=_Record)
    except msgspec.DecodeError:
        # Names of files that are not UTF-8 (decision 0062).
        return msgspec.convert(json.loads(line), _Record)


def _is_sealed(line: bytes, record: _Record) -> bool:
    """Whether the digest in a line is that of what it seals."""
    head = _SEALED.match(line)
    # As this release writes it, which need not be serialised once more.
    if head and _digest(line[head.end() : -2]) == record.sha256:
        return True
    return _digest(_serialised(record.sealed)) == record.sha256


@dataclasses.dataclass(frozen=True)
class Format(Generic[Body]):
    """One kind of record: what its body is, and how to read and write it.

    :ivar kind: its name, in the record
    :ivar version: of the body, as it is written now
    :ivar body: a dataclass, whose fields and types are those of the body
    :ivar converters: by version, what makes its body one of the next version
    :ivar condense: for there may be very many things in a body
    :ivar durable: whether what is saved is on the disk by then; else a crash
        of the host may lose it, or damage the record
    :ivar lasting: whether what it says is not to be lost; else it may be
        replaced whoever has written it
    :ivar limit: bytes in a record at most; nothing larger is read
    """

    kind: str
    version: int
    body: type[Body]
    converters: Mapping[int, Convert] = dataclasses.field(default_factory=dict)
    condense: Condense[Body] | None = None
    lasting: bool = True
    durable: bool = True
    limit: int = 64 * 1024

    def load(self, path: str) -> Body | None:
        """Read a record, without its payload.

        :returns: its body, or None when there is no such file
        :raises nova_imagecache.errors.Damaged: it is not a sound record of
            this kind
        :raises nova_imagecache.errors.Newer: it is of a later version
        :raises OSError: it cannot be read
        """
        try:
            return self._load(path, with_payload=False)[0]
        except FileNotFoundError:
            return None

    def load_whole(self, path: str) -> tuple[Body, bytes]:
        """Read a record that is there, and its payload.

        :raises nova_imagecache.errors.Damaged: it is not a sound record of
            this kind
        :raises nova_imagecache.errors.Newer: it is of a later version
        :raises OSError: it cannot be read
        """
        return self._load(path, with_payload=True)

    def check_replaceable(self, path: str) -> None:
        """See that a record, if there is one, may be replaced by one of ours.

        :raises nova_imagecache.errors.Newer: it is of a later version
        :raises OSError: it cannot be read, so it may be
        """
        try:
            fd = identity.open_regular(path)
        except OSError as error:
            # Nothing there, or something that is no file.
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return
            raise
        with os.fdopen(fd, 'rb') as file:
            found = _HEAD.match(file.read(_HEAD_SIZE))
        if found and found['kind'].decode() == self.kind:
            self._check_version(int(found['version']))

    def _check_version(self, version: int) -> None:
        if version > self.version:
            raise errors.Newer(
                f'it is of version {version}, made by a newer release, and '
                'left alone; upgrade this one'
            )

    def save(
        self,
        layout: layouts.Layout,
        path: str,
        body: Body,
        payload: bytes = b'',
    ) -> None:
        """Publish a record.

        :raises nova_imagecache.errors.Newer: there is one of a later version,
            and stays
        :raises OSError: it was not published
        """
        with self.prepared(layout, path, body, payload) as put:
            put()

    @contextlib.contextmanager
    def prepared(
        self,
        layout: layouts.Layout,
        path: str,
        body: Body,
        payload: bytes = b'',
    ) -> Iterator[Callable[[], None]]:
        """Write a record that is yet to be published.

        :returns: publishes it, as :meth:`save`
        :raises OSError: it was not written
        """
        sealed = {
            'body': body,
            'payload': {
                'length': len(payload),
                'sha256': _digest(payload),
            },
        }
        serialised = _written(sealed)
        head = json.dumps(
            {
                'kind': self.kind,
                'version': self.version,
                'sha256': _digest(serialised),
            }
        ).removesuffix('}')
        line = b'%s, "sealed": %s}\n' % (head.encode(), serialised)
        with publish.prepared(
            line + payload, layout.temporary, self.durable
        ) as put:

            def put_in_place() -> None:
                if self.lasting:
                    self.check_replaceable(path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                put(path)

            yield put_in_place

    def _load(self, path: str, with_payload: bool) -> tuple[Body, bytes]:
        try:
            fd = identity.open_regular(path)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise errors.Damaged('it is not a regular file') from None
            raise
        data = b''
        with os.fdopen(fd, 'rb', _BUFFER) as file:
            if os.fstat(fd).st_size > self.limit:
                raise errors.Damaged('it is too large')
            line = file.readline(self.limit)
            if not line.endswith(b'\n'):
                raise errors.Damaged('it is cut short')
            sealed = self._parse_at_once(line) or self._parse(line)
            if os.fstat(fd).st_size != len(line) + sealed.payload.length:
                raise errors.Damaged('its payload has another length')
            if with_payload:
                data = file.read(sealed.payload.length)
        if with_payload:
            if _digest(data) != sealed.payload.sha256:
                raise errors.Damaged('its payload does not match its digest')
        if self.condense is not None:
            self.condense(sealed.body)
        return sealed.body, data

    def _parse_at_once(self, line: bytes) -> _SealedBody[Body] | None:
        """Give what a line seals, if it is as this release writes it.

        Nothing else is judged here.
        """
        head = _SEALED.match(line)
        if (
            head is None
            or head['kind'].decode() != self.kind
            or head['version'] != str(self.version).encode()
            or self._decoder is None
        ):
            return None
        try:
            record = self._decoder.decode(line)
        except (ValueError, RecursionError):
            return None
        sound = _digest(line[head.end() : -2]) == record.sha256
        return record.sealed if sound else None

    @functools.cached_property
    def _decoder(self) -> msgspec.json.Decoder[_RecordOf[Body]] | None:
        """Decode a line; None where a field that was lost has a default."""
        # To mypy it may be of any type; here it is a dataclass.
        fields = dataclasses.fields(self.body)  # type: ignore[arg-type]
        if any(each.default is not each.default_factory for each in fields):
            return None
        # And no type is to be made of one that it learns here only.
        return msgspec.json.Decoder(_RecordOf[self.body])  # type: ignore[name-defined]

    def _parse(self, line: bytes) -> _SealedBody[Body]:
        """Check the line of a record, and give what it seals."""
        try:
            record = _record_in(line)
        except (ValueError, RecursionError):
            raise errors.Damaged('it is not a record of ours') from None
        if record.kind != self.kind:
            raise errors.Damaged(
                f'it is of kind {record.kind!r}, and not of {self.kind!r}'
            )
        self._check_version(record.version)
        try:
            is_sealed = _is_sealed(line, record)
        except RecursionError:
            is_sealed = False
        if not is_sealed:
            raise errors.Damaged('its content does not match its digest')
        sealed = self._made(record.sealed, _Sealed)
        body = self._converted(sealed.body, record.version)
        return _SealedBody(self._decode(body), sealed.payload)

    def _converted(self, body: Values, version: int) -> Values:
        """Give the body of a record that an earlier release has written."""
        for earlier in range(version, self.version):
            convert = self.converters.get(earlier)
            if convert is None:
                raise errors.Damaged(
                    f'it is of version {version}, which no release has written'
                )
            body = self._changed(body, convert, earlier)
        return body

    def _changed(self, body: Values, change: Convert, version: int) -> Values:
        try:
            return change(body)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise errors.Damaged(
                f'its fields are not those of a {self.kind} of version '
                f'{version}: {names.printable(repr(error))}'
            ) from None

    def _decode(self, values: Values) -> Body:
        # Defaults are for what is made here, and not for what was lost.
        # To mypy it may be of any type; here it is a dataclass.
        for field in dataclasses.fields(self.body):  # type: ignore[arg-type]
            if field.name not in values:
                raise self._odd(f'there is no {field.name}')
        return self._made(values, self.body)

    def _made(self, values: Values, what: type[T]) -> T:
        try:
            return msgspec.convert(values, what)
        except ValueError as error:
            raise self._odd(str(error)) from None

    def _odd(self, why: str) -> errors.Damaged:
        return errors.Damaged(
            f'its fields are not those of a {self.kind}: '
            f'{names.printable(why)}'
        )


def set_aside(path: str, error: errors.Damaged) -> None:
    """Move a damaged record out of the way, for somebody to look at.

    There is one place for it per record: a node that damages records all
    the time does not fill its disk with them.
    """
    aside = path + DAMAGED_SUFFIX
    try:
        os.rename(path, aside)
    except OSError as failure:
        LOG.warning(
            '[N10] The record %(path)s is damaged: %(error)s. It cannot be '
            'set aside: %(failure)s',
            {'path': path, 'error': error, 'failure': failure},
        )
        return
    LOG.warning(
        '[N10] The record %(path)s is damaged: %(error)s. It is now '
        '%(aside)s, and what it said has to be learnt again.',
        {'path': path, 'error': error, 'aside': aside},
    )
