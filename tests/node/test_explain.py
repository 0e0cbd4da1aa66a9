# SPDX-License-Identifier: Apache-2.0

"""What explain says of a file, a code and an alert."""

from nova_imagecache.cli import runbook
from nova_imagecache.content import blockmap
from tests.support import nodes
from tests.support import shell


class ExplainTest(shell.ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.node.add_image('image')
        for number in range(5):
            self.node.add_overlay(f'guest-{number}', self.name)

    def text(self, *argv: str, code: int = 0) -> str:
        got, stdout, stderr = self.run_command('explain', *argv)
        self.assertEqual((code, ''), (got, stderr))
        return stdout

    def test_a_code_needs_no_node_and_no_brackets(self) -> None:
        for text in ('V07', 'v07', '[V07]'):
            code, stdout, stderr = self.shell(
                '--config-file', '/nonexistent', 'explain', text
            )
            self.assertEqual((0, ''), (code, stderr))
            self.assertIn('V07: a disk has a damaged header', stdout)
            self.assertIn('May they go on: ', stdout)
            self.assertIn('admin/runbook.html#code-v07', stdout)

    def test_each_entry_of_the_runbook_fits_a_terminal(self) -> None:
        for anchor in runbook.entries():
            for line in runbook.text_of(anchor).splitlines():
                self.assertLessEqual(len(line), 80, line)

    def test_an_alert_is_explained_by_its_name(self) -> None:
        self.assertIn('Do: ', self.text('NovaImageCacheScrubStalled'))

    def test_a_file_is_found_by_prefix_path_and_image(self) -> None:
        for text in (self.name[:8], 'image', self.node.base_path(self.name)):
            self.assertIn(f'File     {self.name}', self.text(text))

    def test_a_prefix_of_digits_alone_is_one_where_no_incident_is_meant(
        self,
    ) -> None:
        name = '1234' + 'f' * 36
        self.node.add_base(name)
        self.assertIn(f'File     {name}', self.text('1234'))
        got, _stdout, stderr = self.run_command('explain', '12')
        self.assertEqual(1, got)
        self.assertIn('there is no incident 12', stderr)

    def test_of_many_ranges_those_are_listed_that_the_note_has_not(
        self,
    ) -> None:
        self.patch(blockmap, 'BLOCK_SIZE', 4096)
        for _time in range(2):
            self.run_command('verify')
        for block in range(1, 13, 2):
            nodes.flip_bit(self.node.base_path(self.name), block * 4096)
        self.run_command('verify')
        text = self.text(self.name, code=3)
        self.assertIn('bytes 4096-8191 are corrupt, ', text)
        self.assertIn('and 2 more', text)
        self.assertNotIn('bytes 28672-32767: corrupt', text)
        self.assertIn(
            '         bytes 36864-40959: corrupt\n'
            '         bytes 45056-49151: corrupt\nNext ',
            text,
        )

    def test_a_code_that_there_is_not_is_said_to_be_none(self) -> None:
        got, _stdout, stderr = self.run_command('explain', 'z99')
        self.assertEqual(1, got)
        self.assertIn('there is no code Z99', stderr)

    def test_what_is_known_of_a_file_and_cannot_be_used_stops_it_too(
        self,
    ) -> None:
        """As it does for whoever shows the file."""
        self.run_command('verify')
        with open(self.node.layout.ledger(self.name), 'wb') as file:
            file.write(b'garbage')
        self.assertIn('[P09]', self.text(self.name, code=1))
        self.assertEqual(1, self.run_command('show', self.name)[0])

    def test_a_prefix_that_several_have_is_refused(self) -> None:
        self.node.add_base(self.name[:8] + 'f' * 32)
        got, _stdout, stderr = self.run_command('explain', self.name[:8])
        self.assertEqual(1, got)
        self.assertIn('may be any of 2 files', stderr)

    def test_a_damaged_one_has_its_guests_and_what_to_do(self) -> None:
        for _time in range(2):
            self.run_command('verify')
        nodes.flip_bit(self.node.base_path(self.name))
        self.run_command('verify')
        text = self.text(self.name, code=3)
        # And once.
        self.assertIn('\n         bytes 0-65535 are corrupt\nNext ', text)
        # It lasts.
        self.assertIn('INCIDENT 1', self.text('1', code=3))
        for words in (
            '[C01]', 'guest-0', 'guest-2', 'reads through 64.0 KiB',
            'and 2 more: --guests', 'INCIDENT 1', 'Do: ',
        ):  # fmt: skip
            self.assertIn(words, text)
        self.assertNotIn('guest-3', text)
        self.assertIn('guest-4', self.text(self.name, '--guests', code=3))

    def test_what_is_not_known_is_said(self) -> None:
        for text in ('Z99', 'nosuch', '77'):
            got, _stdout, stderr = self.run_command('explain', text)
            self.assertEqual(1, got)
            self.assertIn('there is no ', stderr)
