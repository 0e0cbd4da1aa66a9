# SPDX-License-Identifier: Apache-2.0

"""What a reference means, as qemu-img finds out by opening it."""

from collections.abc import Iterator
import itertools
import json
import os
import struct
import subprocess
from typing import Any

from nova_imagecache.witnesses import references
from tests.support import nodes

# Of the qcow2 header: where the name is, and how long it may be.
NAME_OFFSET = 1024
NAME_LIMIT = 1023

BASE = 'a1b2 \u00e9'

# Why QEMU does not open what has been found: it would be of the right kind.
OTHER_REASONS = (
    "driver requires '",
    'Block node is read-only',
    'Compression is not supported for underlying format',
    'Could not read blkdebug config file',
)


def quoted(text: str, quote: str, escaped: str) -> str:
    """Write a string as QEMU reads it.

    :param escaped: 'none', 'some' or 'all' of its characters are
    """
    written = quote
    for count, char in enumerate(text):
        if char in (quote, '\\'):
            written += f'\\{char}'
        elif escaped == 'all' or (escaped == 'some' and count % 3 == 0):
            written += f'\\u{ord(char):04X}'
        else:
            written += char
    return written + quote


def written(value: Any, quote: str, escaped: str, space: str) -> str:
    if isinstance(value, dict):
        items = [
            f'{quoted(key, quote, escaped)}{space}:{space}'
            f'{written(item, quote, escaped, space)}'
            for key, item in value.items()
        ]
        return f'{{{space}{f"{space},".join(items)}}}'
    if isinstance(value, list):
        items = [written(item, quote, escaped, space) for item in value]
        return f'[{",".join(items)}]'
    if isinstance(value, str):
        return quoted(value, quote, escaped)
    return json.dumps(value)


def flattened(options: dict[str, Any]) -> dict[str, Any]:
    """Say it with dots."""
    found = {}
    for key, item in options.items():
        pairs = item
        if isinstance(item, list):
            pairs = {str(count): each for count, each in enumerate(item)}
        if isinstance(pairs, dict):
            for name, value in flattened(pairs).items():
                found[f'{key}.{name}'] = value
        else:
            found[key] = item
    return found


def half_flattened(options: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, item in options.items():
        if isinstance(item, dict):
            for name, value in half_flattened(item).items():
                found[f'{key}.{name}'] = value
        else:
            found[key] = item
    return dict(reversed(found.items()))


def nested(path: str) -> Iterator[dict[str, Any]]:
    """Give options that lead to a file, and some that do not."""
    file = {'driver': 'file', 'filename': path}
    yield {'file': {'filename': path}}
    yield {'driver': 'raw', 'file': file}
    yield {'file': file, 'driver': 'raw'}
    yield {'driver': 'raw', 'offset': 512, 'size': 1024, 'file': file}
    deep: dict[str, Any] = file
    for _level in range(6):
        deep = {'driver': 'raw', 'file': deep}
    yield deep
    for driver in ('copy-on-read', 'compress', 'preallocate'):
        yield {'driver': 'raw', 'file': {'driver': driver, 'file': file}}
    yield {'driver': 'raw', 'file': {'driver': 'blkdebug', 'image': file}}
    yield {
        'driver': 'raw',
        'file': {
            'driver': 'blkdebug',
            'image': file,
            'inject-error': [{'event': 'write_aio', 'errno': 5}],
        },
    }
    for image in (path, f'json:{json.dumps(file)}', f'blkdebug::{path}'):
        yield {
            'driver': 'raw',
            'file': {'driver': 'blkdebug', 'x-image': image},
        }
    yield {
        'driver': 'raw',
        'file': {'driver': 'blkverify', 'raw': file, 'test': file},
    }
    yield {
        'driver': 'raw',
        'file': {
            'driver': 'quorum',
            'vote-threshold': 1,
            'children': [file, {'driver': 'raw', 'file': file}],
        },
    }
    # What QEMU does not open.
    yield {'driver': 'raw', 'filename': path}
    yield {'driver': 'raw', 'file': path}
    yield {'driver': 'raw', 'file': {}}
    yield {'driver': 'raw', 'file': None}
    yield {'driver': 'raw', 'file': [file]}
    yield {'driver': 'unheard-of', 'file': file}
    yield {'driver': 'raw', 'unheard-of': {'filename': path}, 'file': None}
    yield {'file': {'driver': 'unheard-of', 'filename': path}}
    yield {'file': {'driver': 'file', 'filename': f'file:{path}'}}
    yield {'file': {'filename': f'json:{json.dumps({"file": file})}'}}
    yield {'file': {'filename': f'nbd:{path}'}}
    yield {'file': {'filename': 5}}
    yield {'file': {'driver': None, 'filename': path}}


def json_forms(path: str) -> Iterator[str]:
    # Each of them in some ways only: this takes a process each.
    ways = itertools.cycle(
        itertools.product('\'"', ('none', 'some', 'all'), ('', ' \n'))
    )
    for options in nested(path):
        for form in (options, flattened(options), half_flattened(options)):
            for quote, escaped, space in itertools.islice(ways, 0, 15, 5):
                yield f'json:{written(form, quote, escaped, space)}'


def broken_forms(path: str) -> Iterator[str]:
    """Give what is no JSON to QEMU, or only just."""
    whole = json.dumps({'file': {'driver': 'file', 'filename': path}})
    yield from (f'json:{whole[:end]}' for end in range(0, len(whole), 7))
    yield f'json:{whole} '
    yield f'json:\t{whole}'
    yield f'json:{whole}x'
    yield f'json:{whole}{whole}'
    yield f'json:[{whole}]'
    yield f'json:{json.dumps(path)}'
    yield f'json: json:{whole}'
    yield f'JSON:{whole}'
    yield f' json:{whole}'
    yield f'json:{whole[:-1]},}}'
    yield f'json:{whole[:-1]},"file":{{}}}}'
    yield f'json:{whole[:-1]},"file.filename":"/gone"}}'
    yield f'json:{whole[:-1]},"file.driver":"file"}}'
    yield f'json:{whole[:-1]},"size":01}}'
    yield f'json:{whole[:-1]},"size":512}}'
    yield f'json:{whole[:-1]},"size":"512"}}'
    yield f'json:{whole[:-1]},"offset":0.0}}'
    yield f'json:{whole[:-1]},"offset":tru}}'
    yield f'json:{whole[:-1]},"read-only":true}}'
    yield f'json:{whole[:-1]},"read-only":%d}}'
    for escape in (r'\/', r'\x', r'\u00', r'\u002F', r'\ud83d', r'\u0000'):
        text = path.replace('/', escape)
        yield f'json:{{"file.filename":"{text}"}}'
    yield 'json:' + '{"file":' * 100


def plain_forms(path: str) -> Iterator[str]:
    directory, name = os.path.split(path)
    above, here = os.path.split(directory)
    paths = [
        path,
        name,
        f'./{name}',
        f'.//./{name}',
        f'../{here}/{name}',
        f'./../{here}/../{here}/{name}',
        f'//{path}',
        f'{directory}/./{name}',
        f'{above}//{here}/{name}',
        f'{path}.link',
        f'{name}.link',
        f'{path}x',
        f'{name}x',
        f'{directory}/',
        path.replace('a', '%61'),
        path.replace('a', r'\u0061'),
        f'{path}?x=1',
        f'{path}#x',
        './c:d',
        f'{directory}/c:d',
        'c:d',
        '/dev/fdset/7',
    ]
    yield from paths
    for prefix in (
        'file:', 'file://', 'host_device:', 'host_cdrom:', 'raw:', 'qcow2:',
        'FILE:', ':', 'file:file:', 'blkdebug::', 'blkdebug:/gone:',
        'blkdebug:', 'blkverify:', f'blkverify:{path}:', 'null-co:', 'fat:',
        'fat:rw:', 'blkdebug::blkdebug::', 'blkdebug::file:', 'rbd:',
        'unheard-of://', 'nbd:unix:/gone:exportname=',
        'nbd+unix:///x?socket=/gone/',
    ):  # fmt: skip
        yield from (f'{prefix}{each}' for each in (path, name, 'c:d', ''))


class AgreementTest(nodes.FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = os.path.join(self.temporary, 'd')
        os.mkdir(self.directory)
        self.base = self.path(BASE)
        for path in (self.base, self.path('c:d')):
            with open(path, 'wb') as file:
                file.write(b'\1' * 4096)
        os.symlink(BASE, f'{self.base}.link')
        nodes.qemu_img(
            'create', '-u', '-f', 'qcow2', '-b', 'any', '-F', 'raw',
            self.path('top'), '1M',
        )  # fmt: skip
        self.outcomes = {True: 0, False: 0}

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def write_name(self, reference: str) -> None:
        name = os.fsencode(reference)
        with open(self.path('top'), 'r+b') as file:
            file.seek(8)
            file.write(struct.pack('>QI', NAME_OFFSET, len(name)))
            file.seek(NAME_OFFSET)
            file.write(name)

    def hide_the_format(self) -> None:
        """Let QEMU find out, as it does for old disks."""
        with open(self.path('top'), 'r+b') as file:
            data = file.read(NAME_OFFSET)
            file.seek(data.index(struct.pack('>I', 0xE2792ACA)))
            file.write(b'\1\2\3\4')

    def ask(self, reference: str) -> list[str] | None:
        """Ask QEMU for the names of the files in the chain, if it opens."""
        self.write_name(reference)
        done = subprocess.run(
            ['qemu-img', 'info', '--backing-chain', '--output=json', 'top'],
            check=False,
            capture_output=True,
            cwd=self.directory,
            env=os.environ | {'LC_ALL': 'C'},
        )
        self.refusal = os.fsdecode(done.stderr)
        if done.returncode:
            return None
        return [image['filename'] for image in json.loads(done.stdout)]

    def assert_agreement(self, reference: str) -> None:
        opened = self.ask(reference)
        found = references.read(reference)
        self.outcomes[opened is not None] += 1
        self.assertTrue(found.targets or found.unknown, reference)
        paths = [
            os.path.join(self.directory, target.path)
            for target in found.targets
            if target.local
        ]
        if opened is None:
            self.assertTrue(
                found.unknown
                or not any(map(os.path.isfile, paths))
                or any(reason in self.refusal for reason in OTHER_REASONS),
                (reference, found, self.refusal),
            )
            return
        if reference.startswith('null-co:'):
            self.assertEqual('it has no file', found.unknown)
            return
        # What it names may be a path, or options of more than one file.
        file = os.path.join(self.directory, opened[-1])
        if not os.path.exists(file):
            name = 'c:d' if opened[-1].endswith('c:d') else BASE
            file = self.path(name)
        self.assertTrue(
            any(
                os.path.exists(path) and os.path.samefile(file, path)
                for path in paths
            ),
            (reference, opened, found),
        )
        self.assertIn(
            os.path.basename(file).removesuffix('.link'),
            {name.removesuffix('.link') for name in found.names},
        )

    def assert_all_agree(self, forms: Iterator[str], least: int) -> None:
        for reference in forms:
            # A header has no room for more, and QEMU looks at no more.
            if len(os.fsencode(reference)) <= NAME_LIMIT:
                self.assert_agreement(reference)
        # QEMU has opened many, and refused to open many.
        self.assertGreaterEqual(self.outcomes[True], least, self.outcomes)
        self.assertGreaterEqual(self.outcomes[False], least, self.outcomes)

    def test_json_that_leads_to_a_base_file(self) -> None:
        self.assert_all_agree(json_forms(self.base), 100)

    def test_json_that_leads_to_a_base_file_of_any_format(self) -> None:
        self.hide_the_format()
        self.assert_all_agree(json_forms(self.base), 100)

    def test_json_that_is_hardly_any(self) -> None:
        self.assert_all_agree(broken_forms(self.base), 9)

    def test_file_names_and_protocols(self) -> None:
        self.assert_all_agree(plain_forms(self.base), 20)

    def test_what_qemu_refuses_for_another_reason_is_found(self) -> None:
        for options in (
            {'filename': self.base},
            {'file.filename': self.base, 'size': 1e3},
            {'file.filename': self.base, 'unheard-of': 'x'},
            {'driver': 'raw', 'file.filename': self.base, 'offset': 9999},
        ):
            reference = f'json:{json.dumps(options)}'
            self.assertIsNone(self.ask(reference))
            self.assertEqual(
                (references.Target(self.base, True),),
                references.read(reference).targets,
            )
