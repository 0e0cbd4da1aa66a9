# SPDX-License-Identifier: Apache-2.0

"""Keeps a cache as this release leaves it, in a directory beside this file.

Run before the first change of what is known of files, with the Python that
has the package: ``python -m tests.node.caches.make NAME``. It is never made
anew: what a release has left is what later ones have to go on with.
"""

import os
import shutil
import sys
import unittest

from nova_imagecache.cache import hosts
from nova_imagecache.cache import identity
from nova_imagecache.cache import ignored_files
from nova_imagecache.cache import states
from tests.node.caches import inventory
from tests.support import nodes
from tests.support import scrubbing

HERE = os.path.dirname(__file__)
TARGET = 'NOVA_IMAGECACHE_TEST_KEEP_CACHE'

Case = inventory.Case


class Maker(scrubbing.ScrubTestCase):
    """Has a cache whose files went through all of that."""

    def runTest(self) -> None:
        self.node.clock.wall, self.node.clock.boottime = 1.7e9, 1e6
        self.node.configure(checksum=True, remove_unused=False, host='a-host')
        for case in Case:
            self.node.add_base(case.file, data=case.data)
        # As the pass in which they are seen, which reads none of them.
        self.node.run(inline=False)
        for case in Case:
            getattr(self, '_' + case.name.lower())(case)
        self.node.run(inline=False)
        self.node.pin(Case.GOOD.file)
        self._note()
        self._keep(os.path.join(HERE, os.environ[TARGET]))

    def _read(self, case: Case) -> None:
        self.node.clock.advance(60)
        self.scrub(case.file)

    def _flip(self, case: Case) -> None:
        offset = inventory.BAD * scrubbing.BLOCK + 100
        nodes.flip_bit(self.node.base_path(case.file), offset)

    def _good(self, case: Case) -> None:
        self._read(case)
        self._read(case)

    def _corrupt(self, case: Case) -> None:
        self._good(case)
        self._flip(case)
        self._read(case)

    def _unreadable(self, case: Case) -> None:
        self._good(case)
        with self.failing_reads(inventory.BAD):
            self._read(case)

    def _touched(self, case: Case) -> None:
        real = self.pread
        path = self.node.base_path(case.file)
        self.before_read(1, lambda: os.utime(path))
        self._read(case)
        self.pread = real

    def _changed(self, case: Case) -> None:
        self._touched(case)
        self._flip(case)
        self._read(case)
        self._read(case)

    def _rebaselined(self, case: Case) -> None:
        self._good(case)
        os.unlink(self.node.base_path(case.file) + '.sha1')
        os.truncate(self.node.layout.ledger(case.file), 50)
        self._good(case)

    def _begun(self, case: Case) -> None:
        self.node.clock.advance(60)
        self.scrub(case.file, **self.stop_after(4))
        self.go_on()

    def _sha1_only(self, case: Case) -> None:
        self._good(case)
        os.unlink(self.node.layout.ledger(case.file))

    def _sha1_wrong(self, case: Case) -> None:
        self._sha1_only(case)
        self._flip(case)

    def _trashed(self, case: Case) -> None:
        self._corrupt(case)
        reason = self.node.make_pass().set_aside(case.file, young=False)
        self.assertIsNone(reason)

    def _made_anew(self, case: Case) -> None:
        self._good(case)
        path = self.node.base_path(case.file)
        nodes.write_after(path, case.data, path + '.sha1')
        self.node.set_age(case.file, 0)

    def _differs(self, case: Case) -> None:
        self._made_anew(case)
        self._flip(case)
        self._read(case)

    def _question(self, case: Case) -> None:
        self._made_anew(case)
        self._begun(case)

    def _doubtful(self, case: Case) -> None:
        self._touched(case)
        self._flip(case)
        self._read(case)

    def _note(self) -> None:
        """Note what needs no reading: a use, and a file that is no disk."""
        layout, now = self.node.layout, self.node.clock()
        name = Case.SHA1_ONLY.file
        states.note_use(layout, name, now)
        hosts.note_use(layout, 'a-host', name, now.wall)
        mark = ignored_files.Mark(
            identity.stat_of(self.node.base_path(name)).incarnation.key,
            now.wall,
        )
        ignored_files.amend(
            layout, 'a-host', lambda marks: {**marks, '/no/disk': mark}
        )

    def _keep(self, target: str) -> None:
        ignored = shutil.ignore_patterns('tmp', 'locks', '*.damaged')
        shutil.copytree(self.node.layout.base, target, ignore=ignored)
        for directory, _directories, files in os.walk(target):
            for name in files:
                path = os.path.join(directory, name)
                # The base files can be made again.
                if os.path.getsize(path) >= inventory.SIZE:
                    os.unlink(path)


if __name__ == '__main__':
    os.environ[TARGET] = sys.argv[1]
    outcome = unittest.TextTestRunner().run(Maker())
    sys.exit(not outcome.wasSuccessful())
