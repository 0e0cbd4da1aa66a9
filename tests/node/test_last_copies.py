# SPDX-License-Identifier: Apache-2.0

"""What is left of an image that is gone, by what any host was told."""

import dataclasses
import os
from typing import Any

from nova_imagecache.cache import publish
from nova_imagecache.cache import removal
from nova_imagecache.heal import accounts
from nova_imagecache.heal import notes
from nova_imagecache.heal import outcomes
from nova_imagecache.heal import sources
from nova_imagecache import names
from nova_imagecache.passes import storage
from tests.support import nodes

ID = '5f0c2b1e-9a7d-4386-8e3b-7a904f265d1c'
LATE = '00000000-9a7d-4386-8e3b-7a904f265d1c'


class LastCopiesTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.layout = self.node.layout
        self.host = self.node.settings.host
        self.now = self.node.clock()

    def lose(self, image: str, host: str | None = None) -> None:
        notes.note_image(self.layout, host or self.host, image, True, self.now)

    def told(self, state: str, fetched: int) -> None:
        outcome = outcomes.Outcome(
            'x',
            sources={'image-service': (state, '')} if state else {},
            fetched={'image-service': fetched},
        )
        notes.note_told(self.layout, self.host, ID, outcome, self.now)

    def last_copies(self) -> frozenset[str]:
        return accounts.last_copies(self.layout)

    def test_what_one_host_was_told_all_go_by(self) -> None:
        self.lose(ID, 'another')
        self.assertEqual({names.get_cache_fname(ID)}, self.last_copies())

    def test_a_record_that_is_damaged_hides_no_other_one(self) -> None:
        self.lose(ID)
        with open(os.path.join(self.layout.repairs, '_another'), 'w') as file:
            file.write('garbage')
        self.assertEqual({names.get_cache_fname(ID)}, self.last_copies())

    def test_what_is_no_image_hides_no_other_one(self) -> None:
        self.lose(ID)
        account = accounts.load(self.layout, self.host)
        accounts.save(
            self.layout,
            self.host,
            dataclasses.replace(
                account, gone={**account.gone, '\ud800': self.now}
            ),
        )
        self.assertEqual({names.get_cache_fname(ID)}, self.last_copies())

    def test_an_answer_that_was_cut_off_gives_no_image_back(self) -> None:
        self.lose(ID)
        for state in ('not-found', 'timeout', 'stopped', 'truncated'):
            self.told(state, fetched=17)
            self.assertEqual(1, len(self.last_copies()), state)

    def test_an_image_that_is_there_again_is_one(self) -> None:
        for state in ('', str(sources.State.OTHER_BYTES)):
            self.lose(ID)
            self.told(state, fetched=17)
            self.assertEqual(frozenset(), self.last_copies(), state)

    def test_of_very_many_the_latest_are_kept(self) -> None:
        account = accounts.Account()
        for number in range(1000):
            account = account.seeing(
                f'{number:08x}-9a7d-4386-8e3b-ffffffffffff', True, self.now
            )
        later = dataclasses.replace(self.now, wall=self.now.wall + 60)
        account = account.seeing(LATE, True, later)
        accounts.save(self.layout, self.host, account)
        account = accounts.load(self.layout, self.host).seeing(ID, True, later)
        self.assertIn(LATE, account.gone)

    def test_a_bad_one_is_not_set_aside(self) -> None:
        name = self.node.add_image(ID)
        self.node.configure(checksum=True, remove_unused=False)
        self.node.run()
        nodes.flip_bit(self.node.base_path(name))
        self.node.run()
        self.lose(ID)
        reason = self.node.make_pass().set_aside(name, young=False)
        self.assertIn('gone from the image service', str(reason))
        self.assertIn(name, self.node.files())


class TouchedTest(nodes.NodeTestCase):
    def test_what_is_used_is_touched_though_a_removal_ends_the_pass(
        self,
    ) -> None:
        used = self.node.add_image('used', age=3600)
        unused = self.node.add_image('unused', age=10**6)
        self.node.add_overlay('11111111-aaaa-4aaa-8aaa-000000000001', used)

        def remove(*_args: Any) -> Any:
            raise KeyboardInterrupt

        self.patch(removal, 'remove', remove)
        before = os.stat(self.node.base_path(used)).st_mtime
        self.assertRaises(KeyboardInterrupt, self.node.run)
        after = os.stat(self.node.base_path(used)).st_mtime
        self.assertGreater(after, before)
        self.assertIn(unused, self.node.files())


class AskTest(nodes.NodeTestCase):
    def test_the_storage_is_not_asked_in_somebody_elses_directory(
        self,
    ) -> None:
        self.node.run()
        layout = self.node.layout
        self.assertIsNotNone(storage.ask(layout, 'host').clock)
        os.rename(layout.temporary, os.path.join(self.temporary, 'elsewhere'))
        os.symlink(os.path.join(self.temporary, 'elsewhere'), layout.temporary)
        self.patch(publish, 'current_time', lambda *args: self.fail('asked'))
        self.assertEqual(storage.Storage(), storage.ask(layout, 'host'))
