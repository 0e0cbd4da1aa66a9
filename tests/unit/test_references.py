# SPDX-License-Identifier: Apache-2.0

import json
import os
import re
from typing import Any
import urllib.parse

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache.witnesses import references
from tests.support import base

_WORD = re.compile(r'[0-9A-Za-z_.-]+')

TEXT = st.text(
    st.characters(min_codepoint=1, codec='utf-8'), min_size=1, max_size=30
)
COMPONENT = st.text(
    st.characters(
        min_codepoint=0x20, codec='utf-8', exclude_characters='/\x7f'
    ),
    min_size=1,
    max_size=20,
)
# Any path whose last component is one that could be a file's.
PATHS = st.lists(COMPONENT, min_size=1, max_size=5).map(
    lambda parts: '/' + '/'.join(parts)
)
HOSTS = st.from_regex(
    r'([a-z]{1,8}@)?[a-z0-9.-]{1,20}(:[0-9]{1,5})?', fullmatch=True
)
FILTERS = ('raw', 'copy-on-read', 'throttle', 'compress', 'luks', 'qcow2')


def old_file_names(reference: str) -> frozenset[str]:
    """Give what counted before references were taken apart."""
    found = [reference]
    if reference.startswith('json:'):
        found = _WORD.findall(reference)
        try:
            pending = [json.loads(reference.removeprefix('json:'))]
        except (ValueError, RecursionError):
            pending = []
        while pending:
            item = pending.pop()
            if isinstance(item, str):
                found.append(item)
            elif isinstance(item, dict):
                pending += item.values()
            elif isinstance(item, list):
                pending += item
    components = {text.rstrip('/').rpartition('/')[2] for text in found}
    bare = {component.rpartition(':')[2] for component in components}
    return frozenset(components | bare) - {''}


def local(*paths: str) -> tuple[references.Target, ...]:
    return tuple(references.Target(path, True) for path in paths)


def remote(*paths: str) -> tuple[references.Target, ...]:
    return tuple(references.Target(path, False) for path in paths)


@st.composite
def quoted(draw: st.DrawFn, text: str) -> str:
    """Write a string as QEMU reads it, in one of many ways."""
    quote = draw(st.sampled_from('\'"'))
    escaped = draw(st.sets(st.sampled_from(sorted(set(text)))))
    written = quote
    for char in text:
        if char in escaped or char < ' ':
            units = char.encode('utf-16-be').hex()
            for at in range(0, len(units), 4):
                written += f'\\u{units[at : at + 4]}'
        elif char in ('\\', quote):
            written += '\\' + char
        else:
            written += char
    return written + quote


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    """Write options as QEMU reads them: any order, dots for braces."""
    if not isinstance(value, dict):
        return draw(quoted(value))
    items = []
    for key, item in draw(st.permutations(list(value.items()))):
        while (
            isinstance(item, dict) and len(item) == 1 and draw(st.booleans())
        ):
            ((below, item),) = item.items()
            key = f'{key}.{below}'
        space = draw(st.sampled_from(['', ' ', '\t', '\r\n']))
        text = draw(written(item))
        items.append(f'{draw(quoted(key))}{space}:{space}{text}')
    return '{' + ','.join(items) + '}'


@st.composite
def options(draw: st.DrawFn, path: str) -> dict[str, Any]:
    """Give options that lead to a file, through any number of filters."""
    found: dict[str, Any] = {'filename': path}
    driver = draw(st.sampled_from(['file', 'host_device', None]))
    if driver:
        found['driver'] = driver
    for name in draw(st.lists(st.sampled_from(FILTERS), max_size=6)):
        found = {'driver': name, 'file': found}
    return found


@ddt.ddt
class FormsTest(base.TestCase):
    @ddt.data(
        ('base', local('base')),
        ('../_base/base', local('../_base/base')),
        ('./a:b', local('./a:b')),
        ('/x/base', local('/x/base')),
        ('/x/b%61se?a#b', local('/x/b%61se?a#b')),
        ('/x:y', local('/x:y')),
        ('file:/x/base', local('/x/base')),
        ('file:///x/base', local('///x/base')),
        ('host_device:/dev/sda', local('/dev/sda')),
        ('nfs://h/x/base?uid=1&gid=2', remote('/x/base')),
        ('https://u:p@h:1/x/b%61se?q=/other#/f', remote('/x/base')),
        ('ssh://u@h/x/base?host_key_check=no', remote('/x/base')),
        ('gluster+tcp://h:1/volume/base', remote('/volume/base')),
        ('iscsi://h/iqn.2026:x/1', remote('/iqn.2026:x/1')),
        ('sheepdog:base', remote('base')),
        ('nbd:h:10809:exportname=base', remote('base')),
        ('nbd:unix:/run/s:exportname=x/base', remote('x/base')),
        ('nbd:unix:/run/s', remote('/run/s')),
        ('nbd://h/base', remote('base')),
        ('nbd://h:1', remote('h:1')),
        ('nbd+unix:///b%61se?socket=/run/s', remote('base')),
        ('nbd+unix:///?socket=/run/s', remote('///?socket=/run/s')),
        ('rbd:pool/base@snap:id=x:conf=/etc/y', remote('pool/base')),
        (r'rbd:po\:ol/b\@se', remote('po:ol/b@se')),
        ('blkdebug:/etc/conf:/x/base', local('/x/base')),
        ('blkdebug::blkdebug::/x/base', local('/x/base')),
        ('blkverify:/x/raw:/x/base', local('/x/base', '/x/raw')),
        ('blkdebug::nfs://h/x/base', remote('/x/base')),
        ('json:{"file.filename": "/x/base"}', local('/x/base')),
        ("json:{'file':{'filename':'/x/b\\u0061se'}}", local('/x/base')),
        (
            'json:{"driver":"raw","offset":512,"size":-1.5,'
            '"file":{"driver":"file","filename":"/x/base","locking":"off"}}',
            local('/x/base'),
        ),
        (
            'json:{"driver":"quorum","children":[{"file.filename":"/x/base"},'
            '{"driver":"nfs","path":"/y","server":{"host":"h"}}],'
            '"vote-threshold":2}',
            local('/x/base') + remote('/y'),
        ),
        (
            'json:{"driver":"blkverify","raw.filename":"/a","test":'
            '{"driver":"qcow2","file.filename":"/b","backing":null}}',
            local('/a', '/b'),
        ),
        (
            'json:{"driver":"qcow2","file.filename":"/a","backing":'
            '{"driver":"raw","file.filename":"/b"},"data-file":'
            '{"driver":"host_device","filename":"/c"},'
            '"encrypt":{"format":"luks"}}',
            local('/a', '/b', '/c'),
        ),
        (
            'json:{"driver":"blkdebug","x-image":"json:{\'driver\':\'file\','
            '\'filename\':\'/x/base\'}"}',
            local('/x/base'),
        ),
        (
            'json:{"driver":"https","url":"https://h/x/b%61se?q#f"}',
            remote('/x/base'),
        ),
        (
            'json:{"driver":"ssh","host":"h","path":"/x/base"}',
            remote('/x/base'),
        ),
        (
            'json:{"driver":"nbd","export":"base","server.type":"inet"}',
            remote('base'),
        ),
        (
            'json:{"driver":"nbd","server":{"type":"unix","path":"/s"}}',
            remote('/s'),
        ),
        ('json:{"driver":"nbd","path":"/s"}', remote('/s')),
        ('json:{"driver":"nbd","host":"h"}', remote('h')),
        (
            'json:{"driver":"gluster","volume":"v","path":"x/base",'
            '"server":[{"type":"tcp"}]}',
            remote('v/x/base'),
        ),
        (
            'json:{"driver":"rbd","pool":"p","image":"base"}',
            remote('p/base'),
        ),
        (
            'json:{"driver":"gluster","uri":"gluster://h/v/base"}',
            remote('/v/base'),
        ),
    )
    @ddt.unpack
    def test_what_is_named_is_found(
        self,
        reference: str,
        targets: tuple[references.Target, ...],
    ) -> None:
        found = references.read(reference)
        self.assertIsNone(found.unknown)
        self.assertCountEqual(targets, found.targets)

    @ddt.data(
        ('', 'a name in it is empty'),
        ('file:', 'a name in it is empty'),
        ('raw:/x/base', 'it is of a protocol that is not known (raw)'),
        ('C:/x/base', 'it is of a protocol that is not known (C)'),
        (':x', 'it is of a protocol that is not known ()'),
        ('a\nb:x', r'it is of a protocol that is not known (a\nb)'),
        (
            'nvme://0000:01:00.0/1',
            'it is of a protocol that is not known (nvm',
        ),
        ('null-co://', 'it has no file'),
        ('blkdebug:/x/base', 'a name in it is empty'),
        ('https:', 'it does not say which file'),
        ('rbd:', 'it does not say which file'),
        ('/dev/fdset/3', 'it is open in some process only (/dev/fdset/3)'),
        ('\ud800', 'it is no text'),
        ('json:', 'it is no JSON'),
        ('json:{"file.filename":"/x/base"', 'it is no JSON'),
        ('json:{"file.filename":"/x/base",}', 'it is no JSON'),
        ('json:{"file.filename":"/x/base"} 1', 'it is no JSON'),
        ('json:{"file.filename":"/x/\nbase"}', 'it is no JSON'),
        ('json:{"file.filename":"/x/%s" % 1}', 'it is no JSON'),
        ('json:["/x/base"]', 'it has no options'),
        ('json:"/x/base"', 'it has no options'),
        (r'json:{"a":"\x"}', 'it has an escape that means nothing'),
        (r'json:{"a":"\u00"}', 'it has an escape that means nothing'),
        (r'json:{"a":"\udc80"}', 'it has bytes in it that are no text'),
        ('json:{"a":"\udcff"}', 'it has bytes in it that are no text'),
        ('json:{"a":"b","a":"b"}', 'it says something twice'),
        ('json:' + '[' * 201, 'it is nested too deeply'),
        ('json:{}', 'it does not say which file'),
        ('json:{"driver":"raw"}', 'it does not say which file'),
        ('json:{"driver":"raw","filename":"/x"}', 'it does not say which'),
        ('json:{"driver":"file"}', 'a name in it is empty'),
        ('json:{"driver":"file","filename":5}', 'a name in it is empty'),
        ('json:{"driver":"rbd"}', 'it does not say which file'),
        ('json:{"driver":"null-co"}', 'it has no file'),
        ('json:{"driver":"foo"}', 'it is of a driver that is not known (foo)'),
        ('json:{"driver":""}', 'it is of a driver that is not known ()'),
        ('json:{"driver":null}', 'it does not say which file'),
        ('json:{"driver":"raw","file":"n"}', 'it names a node of QEMU (n)'),
        (
            'json:{"driver":"quorum","children":["n"]}',
            'it names a node of QEMU (n)',
        ),
        (
            'json:{"driver":"raw","next":{"filename":"/x"}}',
            'an option of it is not known (next)',
        ),
    )
    @ddt.unpack
    def test_what_cannot_be_made_out_says_why(
        self, reference: str, reason: str
    ) -> None:
        found = references.read(reference)
        self.assertEqual((), found.targets)
        self.assertIn(reason, found.unknown or '')

    @ddt.data(
        ('file:base', local('base'), 'it is relative to the directory in whi'),
        ('json:{"file.filename":"base"}', local('base'), 'it is relative to'),
        ('blkdebug::base', local('base'), 'it is relative to the directory'),
        ('fat:rw:/x/y', local('/x/y'), 'it is a whole directory (/x/y)'),
        ('fat:c:/x', local('c:/x'), 'it is relative to the directory'),
        (
            'json:{"file.filename":"/a","file":{"filename":"/b"}}',
            local('/b'),
            "it says filename in two ways",
        ),
        (
            'json:{"driver":"foo","file":{"driver":"file","filename":"/a"}}',
            local('/a'),
            'it is of a driver that is not known (foo)',
        ),
        (
            'json:{"driver":"qcow2","file.filename":"/a","backing":"n"}',
            local('/a'),
            'it names a node of QEMU (n)',
        ),
        ('blkverify:foo:/a', local('/a'), 'it is relative to the directory'),
    )
    @ddt.unpack
    def test_what_is_made_out_in_part_says_so(
        self,
        reference: str,
        targets: tuple[references.Target, ...],
        reason: str,
    ) -> None:
        found = references.read(reference)
        self.assertEqual(
            set(targets), set(targets) & set(found.targets), str(found)
        )
        self.assertIn(reason, found.unknown or '')

    def test_in_options_a_path_is_not_taken_apart(self) -> None:
        for path in ('nbd:/x', 'file:/x', 'json:{"file.filename":"/x"}'):
            options = {'file': {'filename': path}}
            found = references.read(f'json:{json.dumps(options)}')
            self.assertEqual(local(path), found.targets)

    def test_what_follows_a_nul_is_not_part_of_a_name(self) -> None:
        for reference in ('/x/base\0y', 'nfs://h/x/base%00y'):
            (target,) = references.read(reference).targets
            self.assertEqual('/x/base', target.path)

    def test_a_nul_in_json_is_two_bytes(self) -> None:
        (target,) = references.read(
            r'json:{"file.filename":"/x\u0000y"}'
        ).targets
        self.assertEqual(b'/x\xc0\x80y', os.fsencode(target.path))


@ddt.ddt
class NamesTest(base.TestCase):
    @ddt.data(
        ('base', {'base'}),
        ('/var/lib/nova/instances/_base/base', {'base'}),
        ('../../_base/base', {'base'}),
        ('file:base', {'file:base', 'base'}),
        ('nbd://host:1/base', {'base'}),
        ('/etc/shadow', {'shadow'}),
        ('/dev/sda', {'sda'}),
        ('..', {'..'}),
        ('', set()),
        ('/', set()),
    )
    @ddt.unpack
    def test_only_the_last_component_counts(
        self, reference: str, expected: set[str]
    ) -> None:
        self.assertEqual(expected, references.read(reference).names)

    @ddt.data(
        'json:{"driver": "qcow2", "file": {"filename": "/x/base"}}',
        'json:{"file.filename": "/x/base"}',
        'json:["/x/other", [[{"a": "/y/base"}]], 5]',
        "json:{'driver': 'raw', 'file': {'filename': '/x/base'}}",
        'json:{"filename": "/x/b\\u0061se"}',
        'json:{broken /x/base',
        'json:{broken /x/b\\u0061se',
        'json:{broken /x/b%61se',
        'json:{"a": "nfs://h/x/b%61se?q',
        'json:' + '[' * 1000 + '"base"',
    )
    def test_any_string_in_a_json_reference_counts(
        self, reference: str
    ) -> None:
        self.assertIn('base', references.read(reference).names)

    @ddt.data(
        'nfs://h/x/base?uid=0',
        'https://h/x/b%61se#f',
        'nbd:unix:/s:exportname=x/base',
        'rbd:pool/base@snap:conf=/etc/ceph',
        'blkverify:/x/base:/x/other',
        'unheard-of://h/x/base?a=/b',
        'unheard-of://h/x/b%61se?a=/b',
    )
    def test_what_is_named_in_any_other_way_counts(
        self, reference: str
    ) -> None:
        self.assertIn('base', references.read(reference).names)


class PropertiesTest(base.TestCase):
    @hypothesis.given(
        st.sampled_from(
            ['', 'json:', 'json:{"file":', 'nbd:', 'rbd:', 'fat:', 'ssh://',
             'json:{"driver":"blkdebug","x-image":"', 'blkverify:'],
        ),
        st.text(max_size=1023) | st.text('{}[]"\'\\:,.u0 d8c/', max_size=1023)
        | st.binary(max_size=1023).map(os.fsdecode),
    )  # fmt: skip
    def test_any_text_is_found_or_unknown(
        self, beginning: str, rest: str
    ) -> None:
        found = references.read(beginning + rest)
        self.assertTrue(found.targets or found.unknown)
        self.assertLessEqual(old_file_names(beginning + rest), found.names)
        for target in found.targets:
            self.assertNotEqual('', target.path)
            self.assertNotIn(b'\0', os.fsencode(target.path))
        os.fsencode(found.unknown or '').decode()

    def test_no_depth_is_too_much(self) -> None:
        for reference in (
            'json:' + '{"file":' * 10**5,
            'json:' + '{"file":' * 150 + '{"filename":"/x"}' + '}' * 150,
            f'json:{{"{"file." * 10**5}filename":"/x"}}',
            'blkdebug::' * 10**4 + '/x',
            'json:{"a":' + '9' * 10**5 + '}',
            'json:{"a":1e' + '9' * 10**5 + '}',
        ):
            found = references.read(reference)
            self.assertTrue(found.targets or found.unknown)

    @hypothesis.given(st.data(), PATHS)
    def test_json_of_any_kind_leads_to_its_file(
        self, data: st.DataObject, path: str
    ) -> None:
        text = 'json:' + data.draw(written(data.draw(options(path))))
        found = references.read(text)
        self.assertEqual((local(path), None), (found.targets, found.unknown))
        self.assertIn(path.rpartition('/')[2], found.names)
        self.assertLessEqual(old_file_names(text), found.names)

    @hypothesis.given(
        st.sampled_from(
            ['nfs', 'ssh', 'http', 'https', 'ftp', 'ftps', 'gluster',
             'gluster+rdma', 'iscsi', 'vxhs']
        ),
        HOSTS, PATHS, st.booleans(), TEXT, TEXT,
    )  # fmt: skip
    def test_a_url_leads_to_its_path(
        self,
        scheme: str,
        host: str,
        path: str,
        everything: bool,
        query: str,
        fragment: str,
    ) -> None:
        written = urllib.parse.quote(path)
        if everything:
            written = ''.join(
                char if char == '/' else f'%{char:02x}'
                for byte in os.fsencode(path)
                for char in [byte if byte != ord('/') else '/']
            )
        url = (
            f'{scheme}://{host}{written}?{urllib.parse.quote(query)}'
            f'#{urllib.parse.quote(fragment)}'
        )
        found = references.read(url)
        self.assertEqual((remote(path), None), (found.targets, found.unknown))
        self.assertIn(path.rpartition('/')[2], found.names)

    @hypothesis.given(PATHS)
    def test_a_path_is_itself(self, path: str) -> None:
        for text in (path, f'.{path}', f'file:{path}'):
            found = references.read(text)
            expected = local(text.removeprefix('file:'))
            self.assertEqual((expected, None), (found.targets, found.unknown))
