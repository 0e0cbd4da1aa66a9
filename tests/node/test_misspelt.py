# SPDX-License-Identifier: Apache-2.0

"""Options that are misspelt."""

from tests.support import shell


class MisspeltTest(shell.ShellTestCase):
    def test_a_misspelt_option_is_told_with_the_nearest_name(self) -> None:
        self.write_conf(checksum_base_image='true')
        code, _stdout, stderr = self.run_command('list')
        self.assertEqual(0, code)
        self.assertIn(
            f'[N20] {self.nova_conf}: [image_cache] has no option '
            'checksum_base_image; did you mean checksum_base_images?',
            stderr,
        )

    def test_a_value_that_makes_no_sense_is_told_with_its_file(self) -> None:
        self.write_conf(checksum_interval_seconds='a week')
        code, _stdout, stderr = self.run_command('list')
        self.assertEqual(1, code)
        with open(self.nova_conf) as file:
            before = file.read().partition('= a week')[0]
        # The last of two that are there.
        line = len(before.splitlines())
        self.assertIn(f'from {self.nova_conf}, line {line}, is', stderr)
        self.assertIn('checksum_interval_seconds', stderr)
        self.assertNotIn('LocationInfo', stderr)

    def test_what_is_not_like_any_of_ours_may_be_novas(self) -> None:
        self.write_conf(something_else='true', manager_interval='2400')
        self.assertEqual('', self.run_command('list')[2])
