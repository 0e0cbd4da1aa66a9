# SPDX-License-Identifier: Apache-2.0

from nova_imagecache.conf import image_cache
from nova_imagecache.witnesses import panel
from tests.support import nodes


class PanelTest(nodes.NodeTestCase):
    def test_each_witness_that_can_be_named_is_made(self) -> None:
        assembly = panel.Assembly()
        for name in image_cache.WITNESSES:
            self.node.configure(witnesses=(name,))
            settings, layout = self.node.settings, self.node.layout
            made = [
                *assembly.instances(settings, [], None),
                *assembly.others(settings, layout),
                *assembly.locks(settings, layout),
            ]
            # The overlays, and what other hosts have noted, are in any case.
            expected = 1 if name == 'overlays' else 2
            self.assertEqual(expected, len(made), name)
