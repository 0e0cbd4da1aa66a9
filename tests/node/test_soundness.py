# SPDX-License-Identifier: Apache-2.0

"""May these bytes be handed out? One answer, for all who ask."""

import os
from typing import Any

from nova_imagecache.cache import trash
from nova_imagecache.content import soundness
from nova_imagecache import errors
from nova_imagecache.fetch import caching
from nova_imagecache import hook
from nova_imagecache.passes import decide
from nova_imagecache.passes import reports
from tests.support import base
from tests.support import nodes

Soundness = soundness.Soundness

GUEST = '11111111-aaaa-4aaa-8aaa-000000000001'


class HandOutTestCase(nodes.NodeTestCase):
    """A base file of which everything good is known."""

    def setUp(self) -> None:
        super().setUp()
        # The manager here goes by the clock of the machine, so what a pass of
        # the node has noted is of another host.
        self.node.configure(
            checksum=True, remove_unused=False, host='another-host'
        )
        self.name = self.node.add_image('image', age=25 * base.HOUR)
        self.path = self.node.base_path(self.name)
        self.data = self.read(self.path)
        self.run_twice()
        self.conf = base.make_conf(instances_path=self.node.layout.instances)
        self.manager = hook.ImageCacheManager(self.conf)
        self.fetched = 0

    def run_twice(self) -> reports.Report:
        self.node.run()
        return self.node.run()

    def read(self, path: str) -> bytes:
        with open(path, 'rb') as file:
            return file.read()

    def spoil(self) -> None:
        """Have one bit flip, and have it found."""
        nodes.flip_bit(self.path)
        self.assertTrue(self.node.run().corrupt)

    def forget(self) -> None:
        """Have it be unclear what is known."""
        with open(self.node.layout.ledger(self.name), 'w') as file:
            file.write('garbage')

    def fetch(self, path: str) -> None:
        self.fetched += 1
        with open(path, 'wb') as file:
            file.write(self.data)

    def disk(self, name: str = 'disk') -> str:
        return os.path.join(self.node.add_directory(GUEST), name)

    def ask(self) -> soundness.Answer:
        return soundness.ask(self.node.layout, self.name)


class AnswerTest(HandOutTestCase):
    def test_what_was_verified_is_sound(self) -> None:
        self.assertEqual(soundness.Answer(Soundness.SOUND), self.ask())
        self.assertIsNone(self.manager.damage_of(self.name))

    def test_what_was_never_read_is_sound(self) -> None:
        other = self.node.add_image('new')
        answer = soundness.ask(self.node.layout, other)
        self.assertIs(Soundness.SOUND, answer.soundness)

    def test_what_is_suspect_is_sound(self) -> None:
        other = self.node.add_image('old')
        self.node.clock.boottime = -base.HOUR
        self.node.make_pass().verify_now([other])
        report = self.node.make_pass().preview()
        self.assertTrue(self.file_of(report, other).suspect)
        answer = soundness.ask(self.node.layout, other)
        self.assertIs(Soundness.SOUND, answer.soundness)

    def test_what_is_not_there_is_sound(self) -> None:
        answer = soundness.ask(self.node.layout, 'f' * 40)
        self.assertIs(Soundness.SOUND, answer.soundness)
        self.assertIsNone(self.manager.damage_of('f' * 40))

    def test_what_is_corrupt_is_bad(self) -> None:
        self.spoil()
        self.assertEqual(
            soundness.Answer(Soundness.BAD, 'corrupt'), self.ask()
        )
        self.assertEqual('corrupt', self.manager.damage_of(self.name))

    def test_of_what_has_lost_its_ledger_to_garbage_it_is_untold(
        self,
    ) -> None:
        self.forget()
        answer = self.ask()
        self.assertIs(Soundness.UNTOLD, answer.soundness)
        self.assertIn('says nothing', answer.reason)
        self.assertRaises(errors.Blind, self.manager.damage_of, self.name)

    def test_what_was_corrupt_is_bad_though_its_ledger_is_lost(self) -> None:
        self.spoil()
        os.unlink(self.node.layout.ledger(self.name))
        self.assertEqual(
            soundness.Answer(Soundness.BAD, 'corrupt'), self.ask()
        )

    def test_without_what_passes_remember_the_ledger_tells(self) -> None:
        with open(self.node.layout.state, 'w') as file:
            file.write('garbage')
        self.assertEqual(soundness.Answer(Soundness.SOUND), self.ask())

    def test_what_was_mended_is_not_what_the_state_remembers(self) -> None:
        self.spoil()
        with open(self.node.layout.state, 'rb') as file:
            state = file.read()
        nodes.flip_bit(self.path)
        self.node.run()
        with open(self.node.layout.state, 'wb') as file:
            file.write(state)
        self.assertEqual(soundness.Answer(Soundness.SOUND), self.ask())

    def test_of_what_cannot_be_looked_at_it_is_untold(self) -> None:
        os.chmod(self.node.layout.base, 0)
        with nodes.unprivileged():
            answer = self.ask()
        self.assertIs(Soundness.UNTOLD, answer.soundness)
        self.assertIn('Permission denied', answer.reason)

    def test_the_report_has_the_same_answer(self) -> None:
        self.assertIs(Soundness.SOUND, self.reported().answer)
        self.spoil()
        self.assertIs(Soundness.BAD, self.reported().answer)
        self.assertEqual(
            [self.name], [file.name for file in self.preview().bad]
        )
        self.forget()
        # As the state remembers what the ledger said.
        self.assertIs(Soundness.BAD, self.reported().answer)

    def preview(self) -> reports.Report:
        return self.node.make_pass().preview()

    def reported(self) -> reports.FileReport:
        return self.file_of(self.preview(), self.name)

    def test_the_trash_gives_back_what_is_sound_alone(self) -> None:
        self.node.configure(remove_unused=True, checksum_interval=base.DAY)
        for spoil, back in ((self.forget, False), (lambda: None, True)):
            spoil()
            self.node.run()
            self.assertEqual({self.name}, self.node.trash())
            self.assertEqual(
                back, caching.is_there(self.node.layout, self.name)
            )
            # As it was, for the next one.
            for file in trash.scan(self.node.layout).files:
                trash.delete(file)
            self.node.add_base(self.name, data=self.data, age=25 * base.HOUR)


class CacheImageTest(HandOutTestCase):
    def cache(self, **kwargs: Any) -> str:
        return hook.cache_image(
            self.fetch, self.name, conf=self.conf, **kwargs
        )

    def test_a_bad_file_that_nobody_uses_is_fetched_anew(self) -> None:
        self.spoil()
        path = self.cache(overlay=self.disk())
        self.assertEqual(1, self.fetched)
        self.assertEqual(self.data, self.read(path))
        self.assertEqual({self.name}, self.node.trash())
        chain = nodes.backing_chain(self.disk())
        self.assertEqual(path, chain[1]['filename'])
        self.assertIn('made anew', self.log.output)

    def test_a_bad_file_that_was_touched_just_now_is_fetched_anew(
        self,
    ) -> None:
        self.spoil()
        os.utime(self.path)
        self.assertEqual(self.data, self.read(self.cache()))

    def test_no_disk_is_made_from_a_bad_file_in_use(self) -> None:
        self.node.add_overlay('other-guest', self.name)
        self.spoil()
        error = self.assertRaises(
            hook.KnownDamage, self.cache, overlay=self.disk()
        )
        self.assertIn('corrupt', str(error))
        self.assertIn('used by 1 guest', str(error))
        self.assertFalse(os.path.exists(self.disk()))
        self.assertEqual(0, self.fetched)
        self.assertIn(self.name, self.node.files())

    def test_a_disk_that_is_there_is_used_whatever_is_below_it(self) -> None:
        self.cache(overlay=self.disk())
        self.spoil()
        self.assertEqual(self.path, self.cache(overlay=self.disk()))
        self.assertEqual(0, self.fetched)
        self.assertIn('used all the same', self.log.output)

    def test_where_it_is_not_to_be_refused_it_is_used(self) -> None:
        self.node.add_overlay('other-guest', self.name)
        self.spoil()
        self.conf.set_override(
            'refuse_damaged_base_images', False, group='image_cache'
        )
        self.assertEqual(self.path, self.cache(overlay=self.disk()))
        self.assertTrue(os.path.exists(self.disk()))
        self.assertIn('used all the same', self.log.output)

    def test_what_cannot_be_told_is_used_and_said(self) -> None:
        self.forget()
        self.assertEqual(self.path, self.cache(overlay=self.disk()))
        self.assertTrue(os.path.exists(self.disk()))
        self.assertIn('cannot be told', self.log.output)

    def test_a_bad_resized_file_is_made_anew_from_the_original(self) -> None:
        size = 2 * base.MIB
        resized = self.cache(resize_to=size)
        self.run_twice()
        nodes.flip_bit(resized)
        self.assertEqual(1, len(self.node.run().corrupt))
        self.node.set_age(os.path.basename(resized), base.HOUR)
        self.assertEqual(resized, self.cache(resize_to=size))
        self.assertEqual(
            self.data + bytes(size - len(self.data)), self.read(resized)
        )
        self.assertEqual(0, self.fetched)

    def test_a_sound_resized_file_needs_no_sound_original(self) -> None:
        resized = self.cache(resize_to=2 * base.MIB)
        self.node.add_overlay('other-guest', self.name)
        self.spoil()
        self.assertEqual(
            resized, self.cache(resize_to=2 * base.MIB, overlay=self.disk())
        )
        self.assertTrue(os.path.exists(self.disk()))

    def test_a_resized_file_is_not_made_from_a_bad_original(self) -> None:
        self.node.add_overlay('other-guest', self.name)
        self.spoil()
        self.assertRaises(hook.KnownDamage, self.cache, resize_to=2 * base.MIB)
        self.assertFalse(
            os.path.exists(f'{self.path}_{2 * base.MIB}'), 'it was copied'
        )

    def test_while_others_set_it_aside_they_are_waited_for(self) -> None:
        self.spoil()
        beaten_before: list[str] = []

        def beaten(name: str) -> str | None:
            # Somebody else has the lock each time, and is through at last.
            if len(beaten_before) == 2:
                self.assertIsNone(self.manager.set_aside(name))
            beaten_before.append(name)
            return 'its lock is held, so it is in use'

        path = caching.FetchPath(
            self.node.layout, beaten, refuse_damaged=True
        ).cache_image(self.fetch, self.name)
        self.assertEqual(self.data, self.read(path))
        self.assertEqual(1, self.fetched)

    def test_a_manager_has_options_of_its_own(self) -> None:
        path = self.manager.cache_image(self.fetch, 'f' * 40)
        self.assertEqual(self.node.base_path('f' * 40), path)

    def test_without_options_nothing_is_guessed(self) -> None:
        self.assertRaises(TypeError, hook.cache_image, self.fetch, 'f' * 40)


class SetAsideTest(HandOutTestCase):
    def test_what_is_not_known_to_be_bad_is_not_set_aside(self) -> None:
        self.assertEqual(
            'it is not known to be bad', self.manager.set_aside(self.name)
        )
        self.assertIn(self.name, self.node.files())

    def test_a_bad_file_of_any_kind_goes_before_its_minimum_age(
        self,
    ) -> None:
        self.node.configure(
            resized_minimum_age=base.DAY, original_minimum_age=base.DAY
        )
        others = (f'{self.name}_{base.MIB}', f'{self.name}_sm', 'swap_64')
        for name in (*others, 'ephemeral_1_abcdef0', 'f' * 40):
            self.node.add_base(name, age=decide.FLOOR_SECONDS + 60)
            for _pass in range(3):
                self.node.run()
            nodes.flip_bit(self.node.base_path(name))
            self.assertTrue(self.node.run().corrupt)
            self.assertIsNone(self.node.make_pass().set_aside(name), name)
            self.assertIn(name, self.node.trash())

    def test_neither_a_pin_nor_the_option_holds_a_bad_file_back(
        self,
    ) -> None:
        self.spoil()
        self.node.set_age(self.name, base.HOUR)
        self.node.pin(self.name)
        self.assertFalse(self.node.settings.remove_unused)
        self.assertIsNone(self.node.make_pass().set_aside(self.name))
        self.assertEqual({self.name}, self.node.trash())
