# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import errno
import importlib
import json
import os
import pkgutil
import typing
from typing import Any

import ddt
import hypothesis
from hypothesis import strategies as st
import msgspec

import nova_imagecache
from nova_imagecache.cache import publish
from nova_imagecache.cache import records
from nova_imagecache import errors
from tests.support import base
from tests.support import nodes


@dataclasses.dataclass
class Things:
    """The body of a record."""

    things: Any


@dataclasses.dataclass
class Typed:
    """The body of another one, which does not take anything."""

    things: list[str]
    others: list[str]


@dataclasses.dataclass
class Lenient:
    """The body of one with a default."""

    things: int
    others: int = 5


FORMAT = records.Format('test', 3, Things)

# With what is no character, as in a name of a file that is not UTF-8.
TEXTS = st.text(st.characters(exclude_categories=()))

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda children: st.lists(children) | st.dictionaries(TEXTS, children),
)

_PACKAGE = 'nova_imagecache.'


def formats() -> list[records.Format[Any]]:
    """Give all kinds of records that there are."""
    found: dict[str, records.Format[Any]] = {}
    for module in pkgutil.walk_packages(nova_imagecache.__path__, _PACKAGE):
        name = module.name.removeprefix(_PACKAGE)
        # It imports Nova, and has none.
        if name.partition('.')[0] in ('nova', '__main__'):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, records.Format):
                found[value.kind] = value
    return [*found.values()]


def types_in(what: Any) -> Iterator[Any]:
    """Give a type, and those of all that is in it."""
    yield what
    if dataclasses.is_dataclass(what) or hasattr(what, '__struct_fields__'):
        for each in typing.get_type_hints(what).values():
            yield from types_in(each)
    for each in typing.get_args(what):
        yield from types_in(each)


def as_ever(sealed: dict[str, Any]) -> bytes:
    """Serialise as a release does that compares digests of it."""
    plain = msgspec.to_builtins(sealed)
    return json.dumps(plain, sort_keys=True, separators=(',', ':')).encode()


@ddt.ddt
class RecordTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.node.layout.own, 'record')

    def save(self, body: dict[str, Any]) -> None:
        FORMAT.save(self.node.layout, self.path, Things(body))

    def load(self) -> Any:
        found = FORMAT.load(self.path)
        return None if found is None else found.things

    def test_what_is_saved_is_loaded(self) -> None:
        body = {'b': [1, None, 2.5], 'a': {'caf\udce9': 'x'}}
        self.save(body)
        self.assertEqual(body, self.load())

    def test_however_deep_it_goes_it_is_loaded_or_damaged(self) -> None:
        self.save({})
        for depth in range(10, 1200):
            body = b'[' * depth + b']' * depth
            with open(self.path, 'wb') as file:
                file.write(
                    b'{"kind": "test", "version": 3, "sha256": "", "sealed": '
                    b'{"body": {"things": %s}, "payload": {"length": 0, '
                    b'"sha256": ""}}}\n' % body
                )
            self.assertRaises(errors.Damaged, self.load)

    def test_no_record_is_none(self) -> None:
        self.assertIsNone(self.load())

    def test_every_truncation_is_noticed(self) -> None:
        self.save({'a': 1})
        with open(self.path, 'rb') as file:
            data = file.read()
        for length in range(len(data)):
            os.truncate(self.path, length)
            self.assertRaises(errors.Damaged, self.load)
            with open(self.path, 'wb') as file:
                file.write(data)

    def test_every_flipped_bit_is_noticed_or_harmless(self) -> None:
        body = {'when': 1234, 'what': 'text'}
        self.save(body)
        for offset in range(os.path.getsize(self.path)):
            for bit in range(8):
                nodes.flip_bit(self.path, offset, bit)
                try:
                    self.assertEqual(body, self.load())
                except (errors.Damaged, errors.Newer):
                    pass
                nodes.flip_bit(self.path, offset, bit)

    @ddt.data(b'', b'null', b'[]', b'{}', b'\xff', b'[' * 100000)
    def test_garbage_is_damaged(self, data: bytes) -> None:
        self.save({})
        with open(self.path, 'wb') as file:
            file.write(data)
        self.assertRaises(errors.Damaged, self.load)

    @ddt.data(os.mkdir, os.mkfifo)
    def test_what_is_no_regular_file_is_damaged(
        self, make: Callable[[str], None]
    ) -> None:
        os.makedirs(self.node.layout.own)
        make(self.path)
        error = self.assertRaises(errors.Damaged, self.load)
        self.assertIn('not a regular file', str(error))

    def test_one_that_cannot_be_read_is_not_damaged(self) -> None:
        """It may be sound, so it is not to be set aside."""
        self.save({'a': 1})
        os.chmod(self.path, 0)
        with nodes.unprivileged():
            self.assertRaises(PermissionError, self.load)

    def test_one_that_cannot_be_read_is_not_replaced(self) -> None:
        self.save({'a': 1})
        real = os.open

        # Mocked: a disk that fails in just that place.
        def open_or_fail(path: Any, *args: Any, **kwargs: Any) -> int:
            if path == self.path:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(path, *args, **kwargs)

        with base.patched(os, 'open', open_or_fail):
            self.assertRaises(OSError, self.save, {'a': 2})
        self.assertEqual({'a': 1}, self.load())

    def test_one_that_is_larger_than_any_is_damaged_and_not_read(self) -> None:
        self.save({'a': 1})
        form = records.Format(
            'test', 3, Things, limit=os.path.getsize(self.path)
        )
        self.assertEqual(Things({'a': 1}), form.load(self.path))
        with open(self.path, 'ab') as file:
            file.write(b'\0')
        error = self.assertRaises(errors.Damaged, form.load, self.path)
        self.assertIn('too large', str(error))

    def test_a_record_of_the_future_or_of_another_kind_is_not_ours(
        self,
    ) -> None:
        for kind, version, error in (
            ('other', 3, errors.Damaged),
            ('test', 4, errors.Newer),
        ):
            form = records.Format(kind, version, Things)
            form.save(self.node.layout, self.path, Things({}))
            self.assertIsNotNone(form.load(self.path))
            self.assertRaises(error, self.load)

    def test_a_damaged_record_is_set_aside_and_logged(self) -> None:
        self.save({})
        records.set_aside(self.path, errors.Damaged('because'))
        self.assertFalse(os.path.exists(self.path))
        self.assertTrue(os.path.exists(self.path + '.damaged'))
        self.assertIn('because', self.log.output)

    def test_one_that_cannot_be_set_aside_is_told_and_ends_nothing(
        self,
    ) -> None:
        self.save({'a': 1})
        os.makedirs(self.path + '.damaged')
        records.set_aside(self.path, errors.Damaged('because'))
        self.assertEqual({'a': 1}, self.load())
        self.assertIn('because', self.log.output)
        self.assertIn('cannot be set aside', self.log.output)

    def test_what_is_prepared_is_on_the_disk_before_it_gets_its_place(
        self,
    ) -> None:
        path = os.path.join(self.temporary, 'file')
        synced = self.note_syncs()
        with publish.prepared(b'data', self.temporary) as put:
            self.assertEqual(1, len(synced))
            put(path)
        # Whoever holds a lock for that waits for the directory alone.
        self.assertEqual([self.temporary], synced[1:])

    def test_publishing_never_leaves_half_a_file(self) -> None:
        self.save({'old': 1})

        # Mocked: a write that fails half way needs a disk that does.
        def fsync(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, 'fsync', fsync)
        self.assertRaises(OSError, self.save, {'new': 2})
        self.assertEqual({'old': 1}, self.load())
        self.assertEqual([], os.listdir(self.node.layout.temporary))

    @hypothesis.given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda children: (
                st.lists(children) | st.dictionaries(st.text(), children)
            ),
        )
    )
    def test_no_json_does_worse_than_damaged(self, value: Any) -> None:
        os.makedirs(self.node.layout.own, exist_ok=True)
        with open(self.path, 'w') as file:
            json.dump({'kind': 'test', 'version': 3, 'body': value}, file)
        self.assertRaises(errors.Damaged, self.load)
        # Sealed, so that nothing but its fields tells.
        records.Format('test', 3, dict).save(
            self.node.layout, self.path, {'things': value, 'others': value}
        )
        form = records.Format('test', 3, Typed)
        sound = isinstance(value, list) and set(map(type, value)) <= {str}
        if sound:
            self.assertEqual(Typed(value, value), form.load(self.path))
        else:
            self.assertRaises(errors.Damaged, form.load, self.path)


def changed(value: Any, path: list[int], new: Any) -> Any:
    """Put something else in a place of a value, or leave that out."""
    if not path or not isinstance(value, (dict, list)) or not value:
        return new
    keys = [*value] if isinstance(value, dict) else [*range(len(value))]
    at = keys[path[0] % len(keys)]
    if len(path) == 1 and new is None:
        del value[at]
    else:
        value[at] = changed(value[at], path[1:], new)
    return value


class AtOnceTest(base.TestCase):
    """A line that is read at once is what it is when it is read by steps."""

    def outcome(self, parse: Callable[[bytes], Any], line: bytes) -> Any:
        try:
            return parse(line)
        except errors.Damaged as error:
            return str(error)

    def line_of(
        self, form: records.Format[Any], body: Any, sealed: Any = None
    ) -> bytes:
        payload = {'length': 0, 'sha256': ''}
        whole = (
            {'body': body, 'payload': payload} if sealed is None else sealed
        )
        serialised = records._serialised(msgspec.to_builtins(whole))
        return b'{"kind": "%s", "version": %d, "sha256": "%s", %s}\n' % (
            form.kind.encode(),
            form.version,
            records._digest(serialised).encode(),
            b'"sealed": ' + serialised,
        )

    @hypothesis.settings(
        suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    @hypothesis.given(
        st.data(), st.lists(st.integers(0, 50), max_size=6), VALUES
    )
    def test_whatever_is_in_it(
        self, data: st.DataObject, path: list[int], new: Any
    ) -> None:
        form = data.draw(st.sampled_from(formats()))
        body = data.draw(st.from_type(form.body))
        line = self.line_of(form, body)
        if path:
            sealed = json.loads(line)['sealed']
            line = self.line_of(form, None, changed(sealed, path, new))
        at_once = self.outcome(form._parse_at_once, line)
        by_steps = self.outcome(form._parse, line)
        if at_once is not None:
            # NaN is not what it is.
            self.assertEqual(repr(by_steps), repr(at_once))

    def test_a_field_that_was_lost_does_not_get_its_default(self) -> None:
        form = records.Format('test', 3, Lenient)
        line = self.line_of(form, {'things': 1, 'others': 2})
        found = form._parse_at_once(line) or form._parse(line)
        self.assertEqual(Lenient(1, 2), found.body)
        line = self.line_of(form, {'things': 1})
        self.assertIsNone(form._parse_at_once(line))
        self.assertIn('no others', self.outcome(form._parse, line))

    def test_a_version_of_very_many_digits_is_none_of_ours(self) -> None:
        line = self.line_of(FORMAT, {'things': 1}).replace(
            b'"version": 3', b'"version": ' + b'9' * 5000
        )
        self.assertIsNone(FORMAT._parse_at_once(line))
        self.assertIn('not a record', self.outcome(FORMAT._parse, line))

    def test_what_was_just_saved_is_read_at_once(self) -> None:
        form = records.Format('test', 3, Typed)
        line = self.line_of(form, Typed(['a'], ['b']))
        found = form._parse_at_once(line)
        assert found is not None
        self.assertEqual(Typed(['a'], ['b']), found.body)
        other = line.replace(b'"a"', b'"x"')
        self.assertIsNone(form._parse_at_once(other))
        later = line.replace(b'"version": 3', b'"version": 4')
        self.assertIsNone(form._parse_at_once(later))


@ddt.ddt
class TextTest(base.TestCase):
    """A record is the same text whoever writes it, for its digest."""

    @hypothesis.given(VALUES)
    @hypothesis.example(float('nan'))
    @hypothesis.example([None, float('inf')])
    @hypothesis.example({'a': -float('inf'), 'b': None})
    def test_whatever_is_in_it_it_is_as_ever(self, value: Any) -> None:
        sealed = {'body': value, 'payload': None}
        self.assertEqual(as_ever(sealed), records._written(sealed))

    @hypothesis.given(st.floats())
    @hypothesis.example(9.999999999999999e-05)
    @hypothesis.example(0.0001)
    @hypothesis.example(9999999999999998.0)
    @hypothesis.example(1e16)
    @hypothesis.example(5e-324)
    @hypothesis.example(-0.0)
    def test_each_number_is_as_ever_wherever_it_is(self, value: float) -> None:
        sealed = {'body': [value, {'x': value}, value], 'payload': value}
        self.assertEqual(as_ever(sealed), records._written(sealed))

    @hypothesis.settings(
        suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    @hypothesis.given(st.data())
    def test_each_kind_is_as_ever(self, data: st.DataObject) -> None:
        form = data.draw(st.sampled_from(formats()))
        body = data.draw(st.from_type(form.body))
        sealed = {'body': body, 'payload': {'length': 0, 'sha256': ''}}
        self.assertEqual(as_ever(sealed), records._written(sealed))

    def test_no_kind_has_keys_that_are_no_texts_or_has_sets(self) -> None:
        known = formats()
        self.assertLess(10, len(known))
        for form in known:
            for each in types_in(form.body):
                origin = typing.get_origin(each) or each
                if origin is dict:
                    key = typing.get_args(each)[0]
                    self.assertTrue(issubclass(key, str), form.kind)
                self.assertNotIn(origin, (set, frozenset), form.kind)

    @ddt.data(
        {'a': 1.5, 'b': None, 'c': [True, 'e5', -(2**63), 0.0]},
        {'name': '0e12f', 'when': 1796063912.8176339, 'none': None},
        {'quoted': '"\\/\x00\x1f\n'},
    )
    def test_what_is_common_is_not_written_twice(self, value: Any) -> None:
        self.assertIsNotNone(records._serialised_fast({'body': value}))

    @ddt.data(
        'caf\xe9', '\x7f', '\udcff', 1e16, 1e-5, 1e-7, [None, float('nan')],
        [float('-inf'), None], [2**64, None], 'e5,', {1: 'one'},
    )  # fmt: skip
    def test_what_is_not_is_left_to_the_standard_library(
        self, value: Any
    ) -> None:
        self.assertIsNone(records._serialised_fast({'body': value}))
