# SPDX-License-Identifier: Apache-2.0

"""What each release has written is read by this one.

The records in ``formats/<when>/`` are of a base file of 9 MiB, whose first
block is corrupt; see ``formats/make.py``.
"""

import os
import shutil

import ddt

from nova_imagecache.cache import base_file
from nova_imagecache.cache import pins
from nova_imagecache.cache import states
from nova_imagecache.content import incidents
from nova_imagecache.content import ledgers
from nova_imagecache.content import sidecars
from nova_imagecache.heal import accounts
from nova_imagecache import names
from nova_imagecache.scrub import activities
from tests.support import base
from tests.support import nodes

HERE = os.path.join(os.path.dirname(__file__), 'formats')
RELEASES = sorted(
    name for name in os.listdir(HERE) if not name.startswith(('_', 'make'))
)

NAME = names.get_cache_fname('image')
SHA1 = '34c5e8f81f71037c882a7befa256aa68dcca7725'


@ddt.ddt
class FormatsTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.node.add_base(NAME, size=9 * base.MIB)
        self.file = base_file.BaseFile.named(self.node.layout, NAME)

    def put(self, release: str, kind: str, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(os.path.join(HERE, release, kind), path)

    def test_there_is_a_release_to_read(self) -> None:
        self.assertIn('2026_11', RELEASES)

    @ddt.data(*RELEASES)
    def test_a_ledger_still_says_which_block_is_bad(
        self, release: str
    ) -> None:
        self.put(release, 'ledger', self.file.ledger)
        ledger = ledgers.Ledger.load(self.file)
        assert ledger is not None
        self.assertEqual((SHA1, True), (ledger.sha1, ledger.settled))
        self.assertEqual(
            {0: ledgers.Damage.CORRUPT}, ledgers.spread(ledger.bad)
        )
        blocks = ledger.load_blocks(self.file)
        self.assertEqual(3, blocks.count)
        self.assertNotIn(None, [blocks.get(index) for index in range(3)])

    @ddt.data(*RELEASES)
    def test_a_state_still_knows_when_a_file_was_seen(
        self, release: str
    ) -> None:
        self.put(release, 'state', self.node.layout.state)
        state = states.load(self.node.layout)
        self.assertEqual({'a-host'}, state.last_passes.keys())
        self.assertEqual(1.7e9, state.files[NAME].seen.wall)
        self.assertTrue(state.files[NAME].digested)

    @ddt.data(*RELEASES)
    def test_a_pin_still_names_its_image(self, release: str) -> None:
        self.put(release, 'pin', os.path.join(self.node.layout.pins, NAME))
        self.assertEqual(
            [pins.Pin(NAME, 'image', 1.7e9)], pins.describe(self.node.layout)
        )

    @ddt.data(*RELEASES)
    def test_the_note_of_a_scrub_is_still_read(self, release: str) -> None:
        self.put(release, 'scrub', self.node.layout.scrub)
        activity = activities.load(self.node.layout)
        assert activity is not None
        self.assertEqual(('a-host', NAME), (activity.host, activity.current))

    @ddt.data(*RELEASES)
    def test_a_stored_checksum_is_still_one(self, release: str) -> None:
        self.put(release, 'sha1', self.file.sidecar)
        self.assertEqual(SHA1, sidecars.read_stored_checksum(self.path))

    @ddt.data(
        ('1', {'unknown': 4259840}),
        ('2', {'unknown': 4259840}),
        ('3', {'repaired': 4194304, 'unreachable': 65536}),
        ('4', {'repaired': 4194304, 'unreachable': 65536}),
        ('5', {'repaired': 4194304, 'unreachable': 65536}),
    )
    @ddt.unpack
    def test_what_a_host_has_repaired_is_still_read(
        self, version: str, fetched: dict[str, int]
    ) -> None:
        """Of each version, and of a file that is still bad."""
        path = os.path.join(self.node.layout.repairs, '_a-host')
        self.put('_repairs', version, path)
        found = accounts.load(self.node.layout, 'a-host')
        self.assertEqual(
            (2.5, 1.7e9), (found.spent, found.noted and found.noted.wall)
        )
        self.assertEqual({'siblings': 3}, found.repaired)
        self.assertEqual({'repaired': 3, 'no-data': 2}, found.results)
        self.assertEqual({'image-service': fetched}, found.fetched)
        asked = found.files[NAME].sources['image-service']
        self.assertEqual(
            ('unreachable', 'no route', 2, 1200.0),
            (asked.state, asked.message, asked.tries, asked.wait),
        )

    def test_whose_image_was_told_of_is_still_known(self) -> None:
        path = os.path.join(self.node.layout.repairs, '_a-host')
        self.put('_repairs', '4', path)
        found = accounts.load(self.node.layout, 'a-host')
        self.assertEqual(1.7e9, found.told['an-image'].wall)

    def test_what_had_begun_is_still_known(self) -> None:
        path = os.path.join(self.node.layout.repairs, '_a-host')
        self.put('_repairs', '5', path)
        found = accounts.load(self.node.layout, 'a-host')
        self.assertEqual({NAME: 2}, found.begun)

    @ddt.data('2', '4', '5')
    def test_whose_image_was_gone_is_still_known(self, version: str) -> None:
        path = os.path.join(self.node.layout.repairs, '_a-host')
        self.put('_repairs', version, path)
        found = accounts.load(self.node.layout, 'a-host')
        self.assertEqual(1.7e9, found.gone['an-image'].wall)

    def test_why_an_image_is_not_known_of_is_still_told(self) -> None:
        path = os.path.join(self.node.layout.repairs, '_a-host')
        self.put('_repairs', '2', path)
        found = accounts.load(self.node.layout, 'a-host')
        assert found.unanswered is not None
        self.assertEqual('no answer', found.unanswered.message)

    @ddt.data('incidents', 'repairs')
    def test_there_is_one_of_each_version(self, kind: str) -> None:
        present = {
            'incidents': incidents._FORMAT.version,
            'repairs': accounts._FORMAT.version,
        }[kind]
        self.assertEqual(
            [*map(str, range(1, present + 1))],
            sorted(os.listdir(os.path.join(HERE, f'_{kind}'))),
        )

    @ddt.data(('1', None), ('2', 'ubuntu-24.04'), ('3', 'ubuntu-24.04'))
    @ddt.unpack
    def test_incidents_are_still_remembered(
        self, version: str, called: str | None
    ) -> None:
        self.put('_incidents', version, self.node.layout.incidents)
        found = incidents.load(self.node.layout)
        self.assertEqual(2, found.last)
        over, lasts = found.incidents
        self.assertEqual(
            (NAME, 'corrupt', ('g2',), incidents.Outcome.HEALED, called),
            (
                over.name, over.verdict, over.copied_up, over.outcome,
                over.image_name,
            ),
        )  # fmt: skip
        self.assertEqual(lasts, found.open(NAME))
