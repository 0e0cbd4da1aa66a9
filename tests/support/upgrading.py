# SPDX-License-Identifier: Apache-2.0

"""A node with a cache that an earlier release has left."""

import json
import os
import shutil
from typing import Any


from nova_imagecache.cache import identity
from nova_imagecache.cache import records
from nova_imagecache.content import blockmap
from nova_imagecache import names
from tests.node import caches
from tests.node.caches import inventory
from tests.support import base
from tests.support import nodes
from tests.support import scrubbing

Case = inventory.Case
Verdict = scrubbing.Verdict
BLOCK = scrubbing.BLOCK
HERE = os.path.dirname(caches.__file__)

#: Cases in which a block went bad on the disk.
FLIPPED = (
    Case.CORRUPT, Case.CHANGED, Case.SHA1_WRONG, Case.TRASHED, Case.DIFFERS,
    Case.DOUBTFUL,
)  # fmt: skip
#: What is found of each when it is read.
READ = {
    Case.GOOD: Verdict.GOOD,
    Case.CORRUPT: Verdict.CORRUPT,
    Case.UNREADABLE: Verdict.GOOD,
    Case.CHANGED: Verdict.GOOD,
    Case.REBASELINED: Verdict.GOOD,
    Case.BEGUN: Verdict.UNKNOWN,
    Case.TOUCHED: Verdict.GOOD,
    Case.SHA1_ONLY: Verdict.GOOD,
    Case.SHA1_WRONG: Verdict.CORRUPT,
    Case.DIFFERS: Verdict.DIFFERS,
    Case.QUESTION: Verdict.GOOD,
    Case.DOUBTFUL: Verdict.GOOD,
}


def rewrite(path: str, change: Any, version: int | None = None) -> None:
    """Change the body of a record, as whoever wrote it would have."""
    with open(path, 'rb') as file:
        record = json.loads(file.readline())
        payload = file.read()
    change(record['sealed']['body'])
    record['sha256'] = records._digest(records._serialised(record['sealed']))
    if version is not None:
        record['version'] = version
    with open(path, 'wb') as file:
        file.write(json.dumps(record).encode() + b'\n' + payload)


class UpgradeTestCase(scrubbing.ScrubTestCase):
    """A node with such a cache.

    :cvar release: that has left it
    :ivar cached: the cases that are in it, but for what is in the trash
    :ivar with_ledger: those of them with a ledger
    :ivar digests: of blocks, by file
    :ivar checksums: what is stored, by file
    """

    release = '2026_11'

    def setUp(self) -> None:
        super().setUp()
        self.kept = os.path.join(HERE, self.release)
        self.with_ledger = [
            case
            for case in Case
            if os.path.exists(f'{self.kept}/.imagecache/ledgers/{case.file}')
        ]
        self.cached = [
            *self.with_ledger, Case.SHA1_ONLY, Case.SHA1_WRONG,
        ]  # fmt: skip
        self.node.configure(
            checksum=True, remove_unused=False, checksum_interval=base.DAY * 7
        )
        # An hour after it was left.
        self.node.clock.wall = 1.7e9 + base.HOUR
        self.node.clock.boottime = 1e6 + base.HOUR

    def put(self) -> None:
        """Put the cache there, the base files before what is known."""
        (self.trashed,) = (
            name.removesuffix('.ledger')
            for name in os.listdir(f'{self.kept}/.imagecache/trash')
            if name.endswith('.ledger')
        )
        self.paths: dict[Case, str] = {
            case: self.node.base_path(case.file) for case in self.cached
        }
        os.makedirs(self.node.layout.trash)
        self.paths[Case.TRASHED] = os.path.join(
            self.node.layout.trash, self.trashed
        )
        for case, path in self.paths.items():
            with open(path, 'wb') as file:
                file.write(case.data)
            if case in FLIPPED:
                nodes.flip_bit(path, inventory.BAD * BLOCK + 100)
            os.utime(path, (1.7e9, 1.7e9))
        shutil.copytree(self.kept, self.node.layout.base, dirs_exist_ok=True)
        self.digests = self.read_digests()
        self.checksums = self.read_checksums()

    def adopt(self) -> None:
        """Have the records be of the files that are there."""

        def key(path: str) -> identity.Key:
            return identity.stat_of(path).incarnation.key

        for case in self.with_ledger:
            own = key(self.paths[case])
            rewrite(
                self.node.layout.ledger(case.file),
                lambda body, own=own: body.update(key=own),
            )
        own = key(self.paths[Case.TRASHED])
        rewrite(
            self.paths[Case.TRASHED] + '.ledger',
            lambda body: body.update(key=own),
        )

        def adopt_all(body: dict[str, Any]) -> None:
            for name, sighting in body['files'].items():
                trashed = bool(names.trashed_name(name))
                sighting['key'] = key(self.node.layout.file(name, trashed))

        rewrite(self.node.layout.state, adopt_all)

    def read_digests(self) -> dict[str, bytes]:
        """Give what each release has of blocks: no strong digests."""
        found = {}
        for name in os.listdir(self.node.layout.ledgers):
            with open(self.node.layout.ledger(name), 'rb') as file:
                line, _newline, payload = file.read().partition(b'\n')
            body = json.loads(line)['sealed']['body']
            count = -(-body['size'] // body['block_size'])
            kinds = payload[:count].replace(b'@', b'#')
            strong = payload[:count].count(b'@') * 32
            found[name] = kinds + payload[count : len(payload) - strong]
        return found

    def read_checksums(self) -> dict[str, bytes]:
        found = {}
        for name in os.listdir(self.node.layout.base):
            if name.endswith('.sha1'):
                with open(self.node.base_path(name), 'rb') as file:
                    found[name] = file.read()
        return found

    def blocks(self, case: Case) -> blockmap.Blocks:
        file = self.file(case.file)
        return self.ledger(case.file).load_blocks(file)

    def assert_nothing_is_relearnt(self) -> None:
        digests, checksums = self.read_digests(), self.read_checksums()
        for case in self.with_ledger:
            if case is not Case.BEGUN:
                self.assertEqual(
                    self.digests[case.file], digests[case.file], case
                )
        self.assertEqual(
            self.checksums, {name: checksums[name] for name in self.checksums}
        )
        damaged = [name for name in digests if name.endswith('.damaged')]
        self.assertEqual([], damaged)

    def verdicts(self) -> dict[Case, Verdict]:
        """Say what is known, without reading."""
        report = self.node.make_pass().preview()
        return {
            case: self.file_of(report, case.file).checksum
            for case in self.cached
        }

    def verify_all(self) -> dict[Case, Verdict]:
        report = self.node.make_pass().verify_now(
            [case.file for case in self.cached]
        )
        return {
            case: self.file_of(report, case.file).checksum
            for case in self.cached
        }

    def assert_each_is_what_it_is(self) -> None:
        """Read all, twice, as one had been begun."""
        read = {case: READ[case] for case in self.cached}
        self.assertEqual(read, self.verify_all())
        self.assert_nothing_is_relearnt()
        self.assertEqual(
            {inventory.BAD: scrubbing.CORRUPT}, self.bad(Case.CORRUPT.file)
        )
        read[Case.BEGUN] = Verdict.GOOD
        self.assertEqual(read, self.verify_all())
        self.assert_nothing_is_relearnt()
