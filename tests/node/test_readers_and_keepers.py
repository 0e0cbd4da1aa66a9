# SPDX-License-Identifier: Apache-2.0

"""Who reads a base file is not who keeps it."""

from tests.support import fake_witnesses
from tests.support import nodes
from tests.support import seeing

GUEST = seeing.GUEST
OTHER = seeing.OTHER


class ReadersTest(seeing.SeeingTestCase):
    def test_a_list_shows_no_reader_and_a_disk_does(self) -> None:
        guests = (self.instance(), self.instance(OTHER, task_state='x'))
        report = self.run_pass(self.listed(*guests))
        row = self.file_of(report, self.used)
        self.assertEqual((GUEST, OTHER), row.users)
        self.assertEqual((GUEST,), row.readers)

    def test_a_domain_that_leads_there_reads_it(self) -> None:
        witness = fake_witnesses.Looks(
            users={self.used: frozenset({'a', 'b'})},
            readers={self.used: frozenset({'b'})},
        )
        row = self.file_of(self.run_pass(witness), self.used)
        self.assertEqual((GUEST, 'a', 'b'), row.users)
        self.assertEqual((GUEST, 'b'), row.readers)

    def test_a_layer_between_makes_a_reader(self) -> None:
        self.node.add_overlay(OTHER, self.disk, 'top', form='qcow2')
        row = self.file_of(self.run_pass(), self.used)
        self.assertEqual((GUEST, OTHER), row.readers)

    def test_damage_is_told_of_them_apart(self) -> None:
        self.node.configure(checksum=True)
        guests = (self.instance(), self.instance(OTHER, task_state='x'))
        for _time in range(2):
            self.make_pass(self.listed(*guests)).verify_now([self.used])
        nodes.flip_bit(self.node.base_path(self.used))
        one = self.make_pass(self.listed(*guests))
        (file,) = one.verify_now([self.used]).corrupt
        self.assertEqual((GUEST, OTHER), file.users)
        self.assertEqual((GUEST,), file.readers)
