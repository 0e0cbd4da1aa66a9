# SPDX-License-Identifier: Apache-2.0

"""A chain ends in a base file, in a disk that is seen, or in a veto."""

import json
import os
from typing import Any

import ddt

from tests.support import nodes
from tests.support import seeing

GUEST = seeing.GUEST
OTHER = seeing.OTHER
THIRD = seeing.THIRD
Reason = seeing.Reason


class ChainTestCase(seeing.SeeingTestCase):
    """Beside what is free there is a base file that nobody names."""

    def setUp(self) -> None:
        super().setUp()
        self.spare = self.node.add_image('spare', age=seeing.OLD)
        self.free_path = self.node.base_path(self.free)

    def assert_found(self) -> None:
        """Check that what a disk needs is kept, and nothing else is."""
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report, self.spare)

    def assert_vetoed(self, *words: str) -> None:
        """Check that everything is kept, and why."""
        report = self.run_pass()
        self.assert_removed(report)
        veto = self.veto(report)
        self.assertIs(Reason.OUT_OF_SIGHT, veto.reason)
        self.assertIsNone(veto.keeps)
        for word in words:
            self.assertIn(word, str(veto))
        (sentence,) = report.vetoes
        self.assertIn('bring what it stands on below', sentence)


@ddt.ddt
class BaseTest(ChainTestCase):
    """References that lead to a base file, in whatever way."""

    @ddt.data(
        '{path}',
        'file:{path}',
        '../_base/{name}',
        'file:////{path}',
        'nfs://nas/export/_base/{name}?uid=0',
        'https://host/_base/{name}?x=1',
        'ssh://user@host/_base/{name}?host_key_check=no',
        'blkdebug::{path}',
        'json:{{"driver": "raw", "file.filename": "{path}"}}',
        'json:{{"driver": "raw", "file": {{"driver": "raw", "file": '
        '{{"driver": "file", "filename": "{path}"}}}}}}',
        "json:{{'driver':'raw','file.filename':'{path}'}}",
        'json:{{"driver": "raw", "file.filename": "{escaped}"}}',
        '/in/a/container/instances/_base/{name}',
    )
    def test_it_keeps_its_base_file_and_no_other(self, form: str) -> None:
        escaped = ''.join(f'\\u{ord(each):04x}' for each in self.free_path)
        if 'escaped' in form:
            # A header has room for 1023 bytes.
            head, tail = self.free_path[:-40], self.free_path[-40:]
            escaped = head + ''.join(f'\\u{ord(each):04x}' for each in tail)
        self.stand_on(
            form.format(path=self.free_path, name=self.free, escaped=escaped)
        )
        self.assert_found()

    def test_through_a_link_elsewhere(self) -> None:
        os.symlink(self.free_path, self.outside('soft'))
        self.stand_on(self.outside('soft'))
        self.assert_found()

    def test_through_a_link_to_one_in_the_trash(self) -> None:
        self.assert_removed(self.run_pass(), self.free, self.spare)
        link = os.path.join(self.node.add_directory(OTHER), 'link')
        os.symlink(self.free_path, link)
        self.stand_on(link)
        self.run_pass()
        self.assertIn(self.free, self.node.files())
        self.assert_clean(self.run_pass())

    def test_as_a_hard_link_elsewhere(self) -> None:
        os.link(self.free_path, self.outside('hard'))
        self.stand_on(self.outside('hard'))
        self.assert_found()

    def test_a_link_that_is_called_like_another_keeps_both(self) -> None:
        os.link(self.free_path, self.outside(self.spare))
        self.stand_on(self.outside(self.spare))
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report)

    def test_through_a_link_to_the_cache(self) -> None:
        os.symlink(self.node.layout.base, self.outside('cache'))
        self.stand_on(self.outside('cache', self.free))
        self.assert_found()

    @ddt.data('ours', 'container', 'link')
    def test_one_that_is_gone_is_missed_and_no_veto(self, kind: str) -> None:
        os.symlink(self.node.layout.base, self.outside('cache'))
        paths = {
            'ours': self.free_path,
            'container': f'/in/a/container/_base/{self.free}',
            'link': self.outside('cache', self.free),
        }
        self.stand_on(paths[kind])
        os.unlink(self.free_path)
        report = self.run_pass()
        self.assertEqual((), report.vetoes)
        (problem,) = report.problems
        self.assertIn(f'base file {self.free} is missing', problem)
        self.assert_removed(report, self.spare)


@ddt.ddt
class LayerTest(ChainTestCase):
    """References that lead to a layer."""

    def test_one_that_is_scanned_says_itself_where_it_leads(self) -> None:
        layer = self.layer(
            os.path.join(self.node.add_directory(THIRD), 'layer'), self.free
        )
        self.stand_on(layer)
        self.assert_found()

    def test_one_that_is_scanned_and_raw_needs_nothing(self) -> None:
        self.stand_on(self.node.add_file(THIRD, 'raw', data=b'x' * 8192))
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report, self.spare, self.free)

    def test_one_that_is_scanned_under_another_path(self) -> None:
        layer = self.layer(
            os.path.join(self.node.add_directory(THIRD), 'layer'), self.free
        )
        os.symlink(layer, self.outside('link'))
        self.stand_on(self.outside('link'))
        self.assert_found()

    def test_one_by_the_path_of_a_container(self) -> None:
        self.layer(
            os.path.join(self.node.add_directory(THIRD), 'layer'), self.free
        )
        self.stand_on(f'/in/a/container/instances/{THIRD}/layer')
        self.assert_found()

    def test_one_outside_is_out_of_sight(self) -> None:
        self.stand_on(self.layer(self.outside('layer'), self.free))
        self.assert_vetoed(self.path(OTHER, 'disk'), self.outside('layer'))

    def test_nor_is_a_raw_one_looked_into(self) -> None:
        with open(self.outside('raw'), 'wb') as file:
            file.write(b'x' * 8192)
        self.stand_on(self.outside('raw'))
        opened = self.spy()
        self.assert_vetoed()
        self.assertNotIn(self.outside('raw'), opened)

    @ddt.data('layers', '_base')
    def test_one_outside_that_is_called_like_a_base_file_is_none(
        self, directory: str
    ) -> None:
        self.stand_on(
            self.layer(self.outside(directory, self.spare), self.free)
        )
        self.assert_vetoed(self.outside(directory, self.spare))

    def test_nor_is_one_that_is_gone_from_where_no_cache_is(self) -> None:
        self.stand_on(self.outside('layers', self.spare))
        self.assert_vetoed(self.outside('layers', self.spare))

    def test_nor_is_one_behind_a_link_and_back(self) -> None:
        """As the kernel goes there, and not as the words read."""
        self.layer(self.outside('_base', self.spare), self.free)
        os.makedirs(self.outside('deep'))
        os.symlink(self.outside('deep'), self.path(OTHER))
        self.stand_on(f'../_base/{self.spare}')
        self.assert_vetoed(self.path(OTHER, 'disk'))

    def test_a_disk_is_not_its_own_layer_at_another_place(self) -> None:
        """It was copied from there, and that is not mounted now."""
        self.stand_on(f'/no/such/mount/instances/{OTHER}/disk')
        self.assert_vetoed('/no/such/mount')

    @ddt.data(
        'nbd://127.0.0.1/layer',
        'nbd://127.0.0.1/{spare}',
        'https://host/layers/{spare}',
        'rbd:pool/image',
        'json:{{"file": {{"driver": "nbd", "host": "127.0.0.1"}}}}',
        'json:{{"driver": "unheard", "file": "of"}}',
        'unheard:of',
        'json:{{',
    )
    def test_what_is_elsewhere_or_not_to_be_made_out(self, form: str) -> None:
        disk = self.stand_on(form.format(spare=self.spare))
        self.assert_vetoed(disk)

    def test_a_data_file_that_is_relative(self) -> None:
        disk = self.path(OTHER, 'disk')
        self.node.add_directory(OTHER)
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-o',
            f'data_file={self.path(OTHER, "data")},data_file_raw=on',
            disk, '1M',
        )  # fmt: skip
        nodes.qemu_img('amend', '-o', 'data_file=data', disk)
        self.assert_vetoed(disk, 'relative')

    def test_a_raw_disk_keeps_what_it_names_and_vetoes_nothing(self) -> None:
        """A guest has written that to it."""
        disk = self.stand_on(f'/elsewhere/{self.free}')
        self.say_raw(disk)
        self.assert_found()

    def test_nor_is_anything_asked_on_the_word_of_a_raw_disk(self) -> None:
        disk = self.stand_on('/net/some.host/share/disk')
        self.say_raw(disk)
        asked = []
        real = os.stat

        def stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
            asked.append(path)
            return real(path, *args, **kwargs)

        self.patch(os, 'stat', stat)
        report = self.run_pass()
        self.assert_clean(report)
        self.assertNotIn('/net/some.host/share/disk', asked)

    def say_raw(self, disk: str) -> None:
        info = json.dumps({disk: 'raw'}).encode()
        self.node.add_file(OTHER, 'disk.info', data=info)

    def test_a_base_file_is_the_end_whatever_it_holds(self) -> None:
        """A tenant has made it."""
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-u', '-b', '/elsewhere/layer',
            '-F', 'raw', self.free_path, '1M',
        )  # fmt: skip
        self.stand_on(self.free_path)
        self.assert_found()


@ddt.ddt
class MissingTest(seeing.SeeingTestCase):
    """A base file that is nowhere."""

    def setUp(self) -> None:
        super().setUp()
        self.node.add_overlay(OTHER, self.used)
        self.node.add_overlay(THIRD, self.used)
        os.unlink(self.node.base_path(self.used))

    def test_it_is_told_once_with_the_guests_that_need_it(self) -> None:
        (problem,) = self.run_pass().problems
        self.assertIn(self.used, problem)
        for guest in (GUEST, OTHER, THIRD):
            self.assertIn(guest, problem)

    def test_only_of_guests_of_this_host_where_they_are_known(self) -> None:
        witness = self.listed(
            self.instance(GUEST),
            self.instance(OTHER, host='another'),
            self.instance(THIRD, host='another'),
        )
        (problem,) = self.run_pass(witness).problems
        self.assertIn(GUEST, problem)
        self.assertNotIn(OTHER, problem)

    def test_not_of_guests_of_others_alone(self) -> None:
        witness = self.listed(
            *(
                self.instance(each, host='another')
                for each in (GUEST, OTHER, THIRD)
            )
        )
        self.assert_clean(self.run_pass(witness))

    def test_not_where_it_is_in_the_trash(self) -> None:
        self.node.add_base(self.used)
        for guest in (GUEST, OTHER, THIRD):
            os.rename(self.path(guest), self.outside(guest))
        self.node.set_age(self.used, seeing.OLD)
        self.run_pass(self.listed())
        self.assertIn(self.used, self.node.trash())
        os.rename(self.outside(GUEST), self.path(GUEST))
        report = self.run_pass(self.listed(self.instance()))
        self.assertEqual((), report.problems)
        self.assertIn(self.used, self.node.files())


@ddt.ddt
class SiblingTest(seeing.SeeingTestCase):
    """The caches of other hosts beside ours."""

    @ddt.data('_base_192.0.2.7', 'cache_of_another')
    def test_it_neither_keeps_nor_is_accused(self, sibling: str) -> None:
        theirs = self.sibling(sibling)
        self.stand_on(theirs)
        self.stand_on(theirs, guest=THIRD)
        report = self.run_pass()
        self.assert_removed(report, self.free)
        self.assertEqual(((), ()), (report.vetoes, report.problems))
        (note,) = report.notes
        self.assertIn(
            f'disks that use {sibling}, the cache of another host: 2', note
        )

    def test_a_file_that_is_gone_from_there_is_not_ours(self) -> None:
        theirs = self.sibling('_base_192.0.2.7')
        os.unlink(theirs)
        self.stand_on(theirs)
        report = self.run_pass()
        self.assert_removed(report, self.free)
        self.assertEqual(((), ()), (report.vetoes, report.problems))

    def test_one_that_is_gone_with_all_its_files_is_not_ours(self) -> None:
        gone = os.path.join(self.node.layout.instances, '_base_192.0.2.7')
        self.stand_on(os.path.join(gone, 'f' * 40))
        report = self.run_pass()
        self.assert_removed(report, self.free)
        self.assertEqual(((), ()), (report.vetoes, report.problems))
        (note,) = report.notes
        self.assertIn('_base_192.0.2.7', note)

    def test_by_the_path_of_a_container(self) -> None:
        self.sibling('_base_192.0.2.7')
        self.stand_on(f'/container/_base_192.0.2.7/{self.free}')
        self.assert_removed(self.run_pass(), self.free)

    def test_one_of_two_references_takes_nothing_from_the_other(self) -> None:
        theirs = self.sibling('_base_192.0.2.7')
        disk = os.path.join(self.node.add_directory(OTHER), 'disk')
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', self.node.base_path(self.free),
            '-F', 'raw', '-o', f'data_file={self.outside("data")}', disk,
        )  # fmt: skip
        nodes.qemu_img('amend', '-o', f'data_file={theirs}', disk)
        self.assert_removed(self.run_pass())

    def test_its_base_files_and_records_are_not_looked_into(self) -> None:
        theirs = self.make_roots(self.sibling('_base_192.0.2.7'))
        trash = self.node.add_directory('_base_192.0.2.7', '.imagecache')
        self.make_roots(trash)
        opened = self.spy()
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report, self.free)
        self.assertFalse({theirs, trash} & {*opened})

    def test_a_layer_in_it_still_counts(self) -> None:
        self.sibling('_base_192.0.2.7')
        self.layer(self.path('_base_192.0.2.7', 'layer'), self.free)
        self.assert_removed(self.run_pass())

    def test_a_link_to_ours_is_no_sibling(self) -> None:
        os.symlink('_base', self.path('_base_192.0.2.7'))
        self.stand_on(self.path('_base_192.0.2.7', self.free))
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report)

    def test_nor_is_it_by_the_path_of_a_container(self) -> None:
        os.symlink('_base', self.path('_base_192.0.2.7'))
        self.stand_on(f'/container/_base_192.0.2.7/{self.free}')
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report)

    def test_one_that_has_become_ours_keeps_what_is_in_ours(self) -> None:
        """It was called otherwise, and running guests know no better."""
        self.stand_on(self.path('_base_192.0.2.7', self.free))
        report = self.run_pass()
        self.assert_clean(report)
        self.assert_removed(report)

    def sibling(self, name: str) -> str:
        """Make the cache of another host with a file that ours has too."""
        self.node.add_directory(name)
        if not name.startswith('_base'):
            self.node.add_directory(name, '.imagecache')
        return self.node.add_file(name, self.free, data=b'x' * 8192)
