# SPDX-License-Identifier: Apache-2.0

"""What the image service says of a file when it is first read."""

from collections.abc import Sequence
import dataclasses
import logging
import os
import random
import subprocess
import sys
from typing import Any

import fixtures
import msgspec

from nova_imagecache.cache import states
from nova_imagecache.content import ledgers
from nova_imagecache.heal import accounts
from nova_imagecache.heal import first_sight
from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import clients
from nova_imagecache.heal.sources import image_api
from nova_imagecache.heal.sources import image_records
from nova_imagecache.heal.sources import images
from nova_imagecache.scrub import keeper
from nova_imagecache.scrub import one_file
from tests.support import base
from tests.support import image_server
from tests.support import nodes
from tests.support import scrubbing
from tests.support import shell

ID = image_server.ID
Trust = ledgers.Trust
Verdict = scrubbing.Verdict


class FirstSightTestCase(scrubbing.ScrubTestCase):
    """A base file that nobody has read, and its image."""

    disk_format = 'raw'

    def setUp(self) -> None:
        super().setUp()
        self.node.configure(checksum=True)
        data = random.Random(5).randbytes(3 * 4096 + 99)
        self.name = self.node.add_image(image_server.ID, data=data)
        path = os.path.join(self.temporary, 'in_glance')
        with open(path, 'wb') as file:
            file.write(data)
        self.server = self.useFixture(
            image_server.ImageServer(
                image_server.Stored(path, disk_format=self.disk_format)
            )
        )
        self.conf = os.path.join(self.temporary, 'user.conf')
        self.configure('auth_type = none\n')

    def configure(self, user: str) -> None:
        with open(self.conf, 'w') as file:
            file.write(
                f'[service_user]\n{user}[glance]\n'
                f'endpoint_override = {self.server.url}\n'
            )

    def asker(self, **values: Any) -> first_sight.Asker:
        return first_sight.Asker(
            self.node.settings,
            [self.conf],
            sources.Watch(),
            self.node.clock,
            lambda: 0.5,
            **values,
        )

    def scrub_it(self, **values: Any) -> Any:
        job = one_file.Job(
            self.file(self.name), self.known(self.name), image_server.ID
        )
        method = one_file.Method(
            'xxh3_128',
            self.means,
            self.node.clock,
            asker=self.asker(),
            **values,
        )
        return one_file.scrub(job, method)

    def account(self) -> accounts.Account:
        return accounts.load(self.node.layout, self.node.settings.host)

    def assert_asked(self, times: int) -> None:
        """For the record of the image, and for no byte of it."""
        asked = [path for path, _range in self.server.requests]
        self.assertEqual(times, sum(path.endswith(ID) for path in asked))
        self.assertEqual([], self.server.asked)


def ask_here(
    uuid: str, paths: Sequence[str], _watch: sources.Watch
) -> images.Image:
    """Ask as the other process does, without the second that it takes."""
    return image_api.ImageApi(clients.from_paths(paths)()).image(uuid)


class AskedTest(FirstSightTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(image_records, 'ask', ask_here)

    def test_what_is_its_image_is_verified_in_the_same_reading(self) -> None:
        finding = self.scrub_it()
        self.assertIs(Verdict.GOOD, finding.verdict)
        ledger = self.ledger(self.name)
        self.assertIs(Trust.ORIGIN_VERIFIED, ledger.trust)
        self.assertEqual(image_server.ID, ledger.image)
        self.assertEqual({}, self.bad(self.name))
        # Once and for all.
        self.assertIs(Verdict.GOOD, self.scrub_it().verdict)
        self.assert_asked(1)

    def test_what_is_not_is_suspect_and_a_problem(self) -> None:
        nodes.flip_bit(self.node.base_path(self.name), 5)
        finding = self.scrub_it()
        self.assertTrue(finding.problem)
        self.assertIn('verify --origin', finding.note)
        self.assertIs(Trust.SUSPECT, self.ledger(self.name).trust)

    def test_an_image_that_is_converted_has_no_such_digest(self) -> None:
        self.server.stored.disk_format = 'qcow2'
        self.server.stored.size = 999
        self.assertFalse(self.scrub_it().problem)
        self.assertIs(Trust.FIRST_SEEN, self.ledger(self.name).trust)

    def test_of_two_that_differ_the_one_like_the_image_is_right(self) -> None:
        """An earlier file was bad, and nobody knew."""
        path = self.node.base_path(self.name)
        nodes.flip_bit(path, 5)
        self.scrub(self.name)
        os.unlink(path)
        os.unlink(path + '.sha1')
        with open(self.server.stored.path, 'rb') as file:
            self.node.add_image(image_server.ID, data=file.read())
        finding = self.scrub_it()
        self.assertIs(Verdict.GOOD, finding.verdict, finding.note)
        self.assertIs(Trust.ORIGIN_VERIFIED, self.ledger(self.name).trust)

    def test_where_nobody_answers_the_reading_goes_on(self) -> None:
        self.server.stored.record_code = 503
        finding = self.scrub_it()
        self.assertFalse(finding.problem, finding.note)
        self.assertIs(Trust.FIRST_SEEN, self.ledger(self.name).trust)
        unanswered = self.account().unanswered
        assert unanswered is not None
        self.assertEqual(
            ('unreachable', 600.0), (unanswered.state, unanswered.wait)
        )

    def test_who_does_not_answer_is_asked_again_later(self) -> None:
        """For whatever file: it is not the file that does not answer."""
        self.server.stored.record_code = 503
        ask, file = self.asker().digest, self.file(self.name)
        self.assertIsNone(ask(file, image_server.ID))
        self.assertIsNone(ask(file, image_server.ID))
        self.assert_asked(1)
        self.node.clock.advance(700)
        self.server.stored.record_code = 200
        self.assertIsNotNone(ask(file, image_server.ID))
        self.assert_asked(2)
        self.assertIsNone(self.account().unanswered)

    def test_an_image_that_may_not_be_seen_is_no_reason_to_wait(self) -> None:
        self.server.stored.record_code = 404
        self.assertFalse(self.scrub_it().problem)
        self.assertIsNone(self.account().unanswered)
        self.assertEqual({}, self.account().gone)

    def test_without_a_user_nobody_is_asked_and_nothing_noted(self) -> None:
        self.configure('')
        self.scrub_it()
        self.assertEqual([], self.server.requests)
        self.assertEqual(accounts.Account(), self.account())

    def test_the_image_of_another_file_is_not_asked_for(self) -> None:
        other = '11111111-2222-4333-8444-555555555555'
        asker, file = self.asker(), self.file(self.name)
        self.assertIsNone(asker.digest(file, other))
        asker.look_again(file, other)
        self.assertEqual([], self.server.requests)

    def test_the_client_is_imported_by_another_process(self) -> None:
        code = (
            'import sys; from nova_imagecache.cli import scrub; '
            'from nova_imagecache.heal.sources import image_records; '
            f'image_records.is_configured([{self.conf!r}]); '
            'sys.exit("openstack" in sys.modules or '
            '"keystoneauth1" in sys.modules)'
        )
        done = subprocess.run([sys.executable, '-c', code])
        self.assertEqual(0, done.returncode)


class LookAgainTest(FirstSightTestCase):
    """A file that is proven, and whose image may be deleted any day."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(image_records, 'ask', ask_here)
        self.configure(
            'auth_type = password\nusername = nova\npassword = secret\n'
            f'auth_url = {self.server.url}/v3\nproject_name = service\n'
            'user_domain_id = default\nproject_domain_id = default\n'
        )
        self.scrub_it()
        self.asked = len(self.server.requests)

    def later(self, seconds: float = 7 * base.DAY) -> Any:
        self.node.clock.advance(seconds)
        return self.scrub_it()

    def last_copies(self) -> list[str]:
        return sorted(accounts.last_copies(self.node.layout))

    def test_that_it_is_gone_comes_out_at_a_later_reading(self) -> None:
        self.server.stored.record_code = 404
        logged = self.useFixture(fixtures.FakeLogger(level=logging.WARNING))
        finding = self.later()
        self.assertEqual([self.name], self.last_copies())
        self.assertIn('[N23]', logged.output)
        # Which is no fault of the file.
        self.assertIs(Verdict.GOOD, finding.verdict)
        self.assertFalse(finding.problem)
        self.assertIs(Trust.ORIGIN_VERIFIED, self.ledger(self.name).trust)
        # Said once, and over when there is one again.
        self.later()
        self.assertEqual(1, logged.output.count('[N23]'))
        self.server.stored.record_code = 200
        self.later()
        self.assertEqual([], self.last_copies())
        self.assertEqual([], self.server.asked)

    def test_who_verifies_each_hour_asks_once_in_days(self) -> None:
        for _hour in range(24):
            self.later(base.HOUR)
        self.assertEqual(self.asked, len(self.server.requests))
        self.later(4 * base.DAY)
        self.assertLess(self.asked, len(self.server.requests))

    def test_who_does_not_answer_is_left_alone_for_a_while(self) -> None:
        self.server.stored.record_code = 503
        self.later()
        self.asked = len(self.server.requests)
        self.later(300)
        self.assertEqual(self.asked, len(self.server.requests))
        self.later(600)
        self.assertLess(self.asked, len(self.server.requests))
        unanswered = self.account().unanswered
        assert unanswered is not None
        self.assertEqual(2, unanswered.tries)
        self.assertEqual([], self.last_copies())

    def test_who_may_not_see_it_is_not_asked_each_time_either(self) -> None:
        self.server.roles = ['service']
        self.server.stored.record_code = 404
        self.later()
        self.asked = len(self.server.requests)
        self.later(base.DAY)
        self.assertEqual(self.asked, len(self.server.requests))
        self.assertEqual([], self.last_copies())

    def test_a_reading_that_goes_on_does_not_ask_again(self) -> None:
        ledger = dataclasses.replace(
            self.ledger(self.name), started=self.node.clock(), position=1
        )
        kept = keeper.Keeper(self.file(self.name), self.known(self.name))
        kept.publish(ledger, kept.recall_blocks())
        self.later()
        self.assertEqual(self.asked, len(self.server.requests))

    def test_where_nothing_can_be_noted_the_reading_goes_on(self) -> None:
        def refuse(*args: Any) -> None:
            raise PermissionError(13, 'Permission denied')

        self.patch(accounts, 'save', refuse)
        self.assertIs(Verdict.GOOD, self.later().verdict)


class ProcessTest(FirstSightTestCase):
    """The process that asks, where something is wrong with it."""

    def ask(self, script: str) -> sources.Unavailable:
        self.patch(image_records, '_PROGRAM', ('-c', script))
        return self.assertRaises(
            sources.Unavailable,
            image_records.ask,
            ID,
            [self.conf],
            sources.Watch(),
        )

    def test_why_it_does_not_answer_is_what_it_said_last(self) -> None:
        error = self.ask('raise ImportError("no such\\x1b[1m library")')
        self.assertIs(sources.State.FAILED, error.state)
        self.assertIn('ImportError: no such', str(error))
        self.assertNotIn('\x1b', str(error))

    def test_one_that_ends_without_a_word_has_a_status(self) -> None:
        self.assertIn('status -9', str(self.ask(
            'import os; os.kill(os.getpid(), 9)'
        )))  # fmt: skip

    def test_one_that_says_anything_without_an_end_is_ended(self) -> None:
        error = self.ask('while True: print("x" * 999999)')
        self.assertIn('says more than', str(error))

    def test_the_reason_is_kept_and_told(self) -> None:
        self.patch(image_records, '_PROGRAM', ('-c', 'raise OSError("odd")'))
        logged = self.useFixture(fixtures.FakeLogger())
        self.asker().digest(self.file(self.name), ID)
        self.assertIn('OSError: odd', logged.output)
        unanswered = self.account().unanswered
        assert unanswered is not None
        self.assertIn('OSError: odd', unanswered.message)


class CommandTest(FirstSightTestCase, shell.ShellTestCase):
    def test_a_scrub_asks_where_nova_conf_says_how(self) -> None:
        self.write_conf(checksum_base_images='true')
        with open(self.conf) as file, open(self.nova_conf, 'a') as conf:
            conf.write(file.read())

        def remember(state: states.State) -> states.State:
            found = state.files[self.name]
            seen = msgspec.structs.replace(found, image=image_server.ID)
            return dataclasses.replace(state, files={self.name: seen})

        self.node.configure(checksum=False)
        self.node.run()
        states.amend(self.node.layout, remember)
        code, _stdout, stderr = self.run_command('scrub')
        self.assertEqual(0, code, stderr)
        self.assertIs(Trust.ORIGIN_VERIFIED, self.ledger(self.name).trust)
        self.assert_asked(1)
