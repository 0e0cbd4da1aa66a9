# SPDX-License-Identifier: Apache-2.0

import stat

import ddt
import hypothesis
from hypothesis import strategies as st

from nova_imagecache import names
from tests.support import base

SHA = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'
Kind = names.Kind


@ddt.ddt
class KindTest(base.TestCase):
    @ddt.data(
        (SHA, Kind.ORIGINAL),
        (f'{SHA}_20', Kind.RESIZED),
        (f'{SHA}_21474836480', Kind.RESIZED),
        (f'{SHA}_sm', Kind.LEGACY),
        ('swap_512', Kind.SWAP),
        ('ephemeral_20_0706d66', Kind.EPHEMERAL),
        (f'{SHA}.part', Kind.LEFTOVER),
        (f'{SHA}.converted', Kind.LEFTOVER),
        (f'{SHA}_20.part', Kind.LEFTOVER),
        (f'.{SHA}.imagecache-0a1b2c', Kind.LEFTOVER),
        (f'.{SHA}_20.imagecache-0a1b2c.part', Kind.LEFTOVER),
        (f'.{SHA}.imagecache-0a1b2c.converted', Kind.LEFTOVER),
        # What rsync writes to when it is told to write to ours.
        (f'..{SHA}.imagecache-0a1b2c.Ab3dEf', Kind.LEFTOVER),
        # What earlier releases had a driver write to.
        (f'.{SHA}.0a1b2c.part', Kind.LEFTOVER),
        (f'{SHA}.sha1', Kind.LEFTOVER),
    )
    @ddt.unpack
    def test_a_name_of_the_cache_is_known(self, name: str, kind: Kind) -> None:
        self.assertEqual(kind, names.kind_of(name))

    @ddt.data(
        SHA.upper(),
        SHA[:-1],
        f'{SHA}0',
        f'{SHA}_',
        f'{SHA}_2x',
        f'{SHA}_\u0663',
        f'{SHA}\n',
        f'{SHA}.part.part',
        f'{SHA}.sha1.sha1',
        f'.{SHA}.toolong',
        f'.{SHA}.0a1b2c',
        f'.{SHA}.imagecache-0a1b2',
        f'{SHA}.imagecache-0a1b2c',
        '.image.imagecache-0a1b2c',
        'swap_',
        'swap_5_1',
        'ephemeral_20_default',
        'ephemeral_x_0706d66',
        'image.part',
        '.imagecache',
        'caf\udce9',
        '',
    )
    def test_any_other_name_is_not(self, name: str) -> None:
        self.assertEqual(Kind.OTHER, names.kind_of(name))

    @ddt.data(
        ('Ab3dEf', stat.S_IFREG | 0o600, Kind.LEFTOVER),
        ('Ab3dEf', stat.S_IFREG | 0o700, Kind.LEFTOVER),
        ('Ab3dEf', stat.S_IFREG | 0o640, Kind.OTHER),
        ('Ab3dEf', stat.S_IFREG | 0o604, Kind.OTHER),
        ('Ab3dEf', stat.S_IFDIR | 0o700, Kind.OTHER),
        ('Ab3dEf', 0, Kind.OTHER),
        ('backup', stat.S_IFREG | 0o600, Kind.OTHER),
        ('260101', stat.S_IFREG | 0o600, Kind.OTHER),
        ('decade', stat.S_IFREG | 0o600, Kind.OTHER),
    )
    @ddt.unpack
    def test_what_is_rsyncs_is_its_owners_alone_and_no_word(
        self, random: str, mode: int, kind: Kind
    ) -> None:
        self.assertEqual(kind, names.kind_of(f'.{SHA}.{random}', mode))

    def test_what_rsync_makes_of_other_files_is_none_of_ours(self) -> None:
        mode = stat.S_IFREG | 0o600
        self.assertEqual(Kind.OTHER, names.kind_of('.image.Ab3dEf', mode))

    def test_what_is_staged_is_a_leftover_of_its_base_file(self) -> None:
        name = names.staged_name(SHA)
        self.assertEqual(SHA, names.leftover_of(name))
        self.assertEqual(Kind.LEFTOVER, names.kind_of(name))
        self.assertNotEqual(name, names.staged_name(SHA))

    def test_guests_read_base_files_and_nothing_else(self) -> None:
        others = {Kind.LEFTOVER, Kind.OTHER}
        self.assertEqual(others, {kind for kind in Kind if not kind.is_base})

    def test_three_kinds_are_made_from_an_image(self) -> None:
        self.assertEqual(
            {Kind.ORIGINAL, Kind.RESIZED, Kind.LEGACY},
            {kind for kind in Kind if kind.is_image},
        )

    def test_the_name_of_a_checksum_is_that_of_2012(self) -> None:
        self.assertEqual(f'/x/{SHA}.sha1', names.sidecar_name(f'/x/{SHA}'))

    def test_leftovers_and_checksums_share_the_lock_of_their_base(
        self,
    ) -> None:
        for name in (f'{SHA}.part', f'.{SHA}.Ab3dEf', f'{SHA}.sha1', SHA):
            self.assertEqual(SHA, names.lock_name(name))
        self.assertEqual('other.part', names.lock_name('other.part'))

    def test_the_base_file_of_an_image_has_the_name_that_nova_gives_it(
        self,
    ) -> None:
        self.assertEqual(SHA, names.get_cache_fname(''))

    def test_a_resized_file_has_the_fingerprint_of_its_image(self) -> None:
        for name in (SHA, f'{SHA}_20', f'{SHA}_sm'):
            self.assertEqual(SHA, names.fingerprint(name))

    def test_only_a_checksum_is_one_of_a_base_file(self) -> None:
        self.assertEqual(SHA, names.sidecar_of(f'{SHA}.sha1'))
        for name in (SHA, 'readme.sha1', f'{SHA}.sha1.part'):
            self.assertIsNone(names.sidecar_of(name))

    @hypothesis.given(st.text(alphabet=st.characters(codec=None)))
    def test_what_is_printable_prints(self, text: str) -> None:
        try:
            printed = names.printable(text)
        except UnicodeEncodeError:
            # No file name: a surrogate that os.fsdecode never gives.
            return
        printed.encode()
        self.assertTrue(printed.isprintable())

    def test_a_name_that_is_not_utf8_is_printed_with_escapes(self) -> None:
        self.assertEqual(r'caf\xe9', names.printable('caf\udce9'))
        self.assertEqual(r'a\nb\x1b[31m', names.printable('a\nb\x1b[31m'))
        # As JSON may have it, and no file name.
        self.assertEqual(r'a\ud800', names.printable('a\ud800'))


class NameTest(base.TestCase):
    def test_a_name_in_the_trash_tells_the_base_file(self) -> None:
        name = names.get_cache_fname('x')
        for file in (name, f'{name}.part', f'.{name}.Ab3dEf', f'{name}.sha1'):
            self.assertEqual(file, names.original(f'{file}.0123abcd'))
        for other in (name, f'{name}.sha1', 'README.0123abcd', f'{name}.'):
            self.assertIsNone(names.trashed_name(other))
            self.assertRaises(ValueError, names.original, other)

    def test_a_name_in_the_trash_tells_when_it_was_moved(self) -> None:
        name = names.trash_name(SHA, 0x1234567A + 0.9)
        self.assertEqual(f'{SHA}.1234567a', name)
        self.assertEqual(0x1234567A, names.trashed_at(name))

    def test_a_name_in_the_trash_stays_one_after_2106(self) -> None:
        self.assertEqual(f'{SHA}.00000005', names.trash_name(SHA, 2**32 + 5))


@ddt.ddt
class OfACacheTest(base.TestCase):
    @ddt.data(SHA, f'{SHA}_20', 'swap_512', f'{SHA}.part', f'.{SHA}.Ab3dEf')
    def test_base_files_and_what_is_to_become_one_are(self, name: str) -> None:
        self.assertIs(True, names.is_of_a_cache(name))

    @ddt.data('disk', 'README', 'swap_x', '', SHA[1:])
    def test_nothing_else_is(self, name: str) -> None:
        self.assertIs(False, names.is_of_a_cache(name))


@ddt.ddt
class AbbreviatedTest(base.TestCase):
    @ddt.data(
        (SHA, 'da39a3ee5e6b'),
        (f'{SHA}_20', 'da39a3ee5e6b_20'),
        (f'{SHA}.0123abcd', 'da39a3ee5e6b.0123abcd'),
        ('swap_512', 'swap_512'),
    )
    @ddt.unpack
    def test_the_rest_of_a_name_stays(self, name: str, short: str) -> None:
        self.assertEqual(short, names.abbreviated(name))

    @ddt.data(
        (SHA[:4], SHA, True),
        (SHA[:39], SHA, True),
        (SHA, SHA, True),
        (f'{SHA[:12]}_20', f'{SHA}_20', True),
        # Too few of them tell too little.
        (SHA[:3], SHA, False),
        (SHA[:12], f'{SHA}_20', False),
        (f'{SHA[:11]}0', SHA, False),
        ('', SHA, False),
    )
    @ddt.unpack
    def test_four_digits_and_that_rest_stand_for_it(
        self, text: str, name: str, expected: bool
    ) -> None:
        self.assertIs(expected, names.is_abbreviated(text, name))
