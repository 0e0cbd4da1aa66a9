# SPDX-License-Identifier: Apache-2.0

import ddt

from nova_imagecache.witnesses import disk_header
from tests.support import base


@ddt.ddt
class FileNamesTest(base.TestCase):
    @ddt.data(
        ('base', {'base'}),
        ('/var/lib/nova/instances/_base/base', {'base'}),
        ('../../_base/base', {'base'}),
        ('file:base', {'file:base', 'base'}),
        ('nbd://host:1/base', {'base'}),
        ('/etc/shadow', {'shadow'}),
        ('/dev/sda', {'sda'}),
        ('..', {'..'}),
        ('', set()),
        ('/', set()),
    )
    @ddt.unpack
    def test_only_the_last_component_counts(
        self, reference: str, expected: set[str]
    ) -> None:
        self.assertEqual(expected, disk_header.file_names(reference))

    @ddt.data(
        'json:{"driver": "qcow2", "file": {"filename": "/x/base"}}',
        'json:{"file.filename": "/x/base"}',
        'json:["/x/other", [[{"a": "/y/base"}]], 5]',
        "json:{'driver': 'raw', 'file': {'filename': '/x/base'}}",
        'json:{"filename": "/x/b\\u0061se"}',
        'json:{broken /x/base',
        'json:' + '[' * 1000 + '"base"',
    )
    def test_any_string_in_a_json_reference_counts(
        self, reference: str
    ) -> None:
        self.assertIn('base', disk_header.file_names(reference))
