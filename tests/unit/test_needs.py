# SPDX-License-Identifier: Apache-2.0

import ddt

from nova_imagecache import names
from nova_imagecache.witnesses import needs
from tests.support import base

SHA = names.get_cache_fname('an image')
OTHER = names.get_cache_fname('another')


@ddt.ddt
class NeedsTest(base.TestCase):
    @ddt.data(SHA, f'{SHA}_20', f'{SHA}_sm')
    def test_an_image_is_needed_in_all_its_forms(self, name: str) -> None:
        self.assertTrue(needs.may_need({SHA}, name))
        self.assertFalse(needs.may_need({OTHER}, name))
        self.assertFalse(needs.may_need(needs.ANY_DEVICE, name))

    def test_a_file_by_its_name_is_needed_in_that_form_alone(self) -> None:
        self.assertTrue(needs.may_need({f'{SHA}_20'}, f'{SHA}_20'))
        for name in (SHA, f'{SHA}_30', f'{SHA}_sm'):
            self.assertFalse(needs.may_need({f'{SHA}_20'}, name), name)

    def test_swap_is_needed_by_its_size_or_all_of_it(self) -> None:
        self.assertTrue(needs.may_need({'swap_512'}, 'swap_512'))
        self.assertFalse(needs.may_need({'swap_51'}, 'swap_512'))
        self.assertTrue(needs.may_need({needs.ANY_SWAP}, 'swap_512'))
        self.assertFalse(needs.may_need({needs.ANY_EPHEMERAL}, 'swap_512'))

    def test_ephemeral_is_needed_by_its_size_or_all_of_it(self) -> None:
        name = 'ephemeral_20_abcdef0'
        self.assertTrue(needs.may_need({'ephemeral_20'}, name))
        self.assertTrue(needs.may_need({name}, name))
        self.assertTrue(needs.may_need({needs.ANY_EPHEMERAL}, name))
        for word in ('ephemeral_2', 'ephemeral_20_0000000', needs.ANY_SWAP):
            self.assertFalse(needs.may_need({word}, name), word)

    def test_nothing_is_needed_by_nobody(self) -> None:
        for name in (SHA, 'swap_512', 'ephemeral_20_abcdef0', 'golden'):
            self.assertFalse(needs.may_need((), name), name)

    @ddt.data('ephemeral_x_abcdef0', 'ephemeral_20', 'golden', 'swap_x')
    def test_another_name_means_itself_alone(self, name: str) -> None:
        self.assertEqual({name}, needs.words_for(name) - needs.ANY_DEVICE)
        self.assertTrue(needs.may_need({name}, name))
