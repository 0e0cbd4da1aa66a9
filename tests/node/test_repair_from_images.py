# SPDX-License-Identifier: Apache-2.0

"""The image service as a source of the command repair, and how it fails."""

import hashlib
import json
import os
import struct
from typing import Any

import ddt

from nova_imagecache.content import blockmap
from nova_imagecache.heal.sources import askers
from nova_imagecache.heal.sources import image_api
from nova_imagecache.heal.sources import streams
from tests.support import base
from tests.support import healing
from tests.support import image_server
from tests.support import scrubbing

BLOCK = healing.BLOCK


@ddt.ddt
class ImageServiceTest(healing.HealTestCase):
    """The image service as a source of the command."""

    image = image_server.ID

    def serve(self, **faults: Any) -> image_server.ImageServer:
        """Have an image service that has the image."""
        server = self.useFixture(
            image_server.ImageServer(image_server.Stored(self.copy, **faults))
        )
        with open(self.nova_conf, 'a') as file:
            file.write(
                '[service_user]\nauth_type = none\n'
                f'[glance]\nendpoint_override = {server.url}\n'
            )
        return server

    def test_the_image_service_gives_the_block_and_no_more(self) -> None:
        server = self.serve()
        self.damage(1)
        code, blocks, summary, stderr = self.repair('--image', image_server.ID)
        self.assertEqual(0, code, stderr)
        self.assertIn('image-service', blocks[0]['source'])
        self.assertEqual(BLOCK, server.sent)
        # And what the image service says of the image.
        fetched = summary['fetched']['image-service']
        self.assertLessEqual(fetched, BLOCK + 64 * base.KIB)
        self.assert_healed()

    def test_without_a_cryptographic_digest_it_is_not_even_asked(self) -> None:
        server = self.serve()
        self.damage(1)
        self.patch(
            blockmap.Blocks, 'weak', property(lambda blocks: frozenset({1}))
        )
        code, _blocks, summary, _stderr = self.repair(
            '--image', image_server.ID
        )
        self.assertEqual(3, code)
        state = summary['sources']['image-service']['state']
        self.assertEqual('weak-digest', state)
        self.assertEqual([], server.asked)

    def write_as_version_3(self) -> None:
        """Have the ledger be one of a release that knew no strong digests."""
        path = self.node.layout.ledger(self.name)
        blocks = self.ledger(self.name).load_blocks(self.file(self.name))
        weak = blockmap.Blocks(
            blocks.algorithm, blocks.size, blocks.block_size
        )
        for index in range(blocks.count):
            digest = blocks.get(index)
            assert digest is not None
            weak.put(index, digest)
        payload = weak.encode()
        with open(path, 'rb') as file:
            record = json.loads(file.readline())
        sealed = record['sealed']
        del sealed['body']['origin']
        sealed['payload'] = {
            'length': len(payload),
            'sha256': hashlib.sha256(payload).hexdigest(),
        }
        text = json.dumps(sealed, sort_keys=True, separators=(',', ':'))
        record['version'] = 3
        record['sha256'] = hashlib.sha256(text.encode()).hexdigest()
        with open(path, 'wb') as file:
            file.write(json.dumps(record).encode() + b'\n' + payload)

    def weak(self) -> frozenset[int]:
        ledger = self.ledger(self.name)
        return ledger.load_blocks(self.file(self.name)).weak

    def test_what_an_earlier_release_knew_to_be_bad_is_repaired_from_here(
        self,
    ) -> None:
        """By XXH3 alone, which finds decay; over a network it proves nothing.

        What is good gets a strong digest in the next reading, and the block
        in the one after its repair.
        """
        server = self.serve()
        self.damage(1)
        self.write_as_version_3()
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))
        self.run_command('verify', self.name)
        self.assertEqual({1}, self.weak())
        before = self.content()
        code, _blocks, summary, _stderr = self.repair(
            '--image', image_server.ID
        )
        self.assertEqual(3, code)
        told = summary['sources']['image-service']
        self.assertEqual('weak-digest', told['state'])
        self.assertIn('--source', told['message'])
        self.assertEqual([], server.asked)
        self.assertEqual(before, self.content())
        # A file that a person vouches for is asked by the weak one.
        code, _blocks, _summary, stderr = self.repair('--source', self.copy)
        self.assertEqual(0, code, stderr)
        self.assert_healed()
        self.assertEqual({1}, self.weak())
        self.run_command('verify', self.name)
        self.assertEqual(frozenset(), self.weak())

    def test_an_image_with_other_bytes_is_not_written(self) -> None:
        with open(self.copy, 'r+b') as file:
            file.seek(BLOCK + 7)
            file.write(b'other')
        self.serve()
        self.damage(1)
        before = self.content()
        code, _blocks, summary, _stderr = self.repair(
            '--image', image_server.ID
        )
        self.assertEqual(3, code)
        state = summary['sources']['image-service']['state']
        self.assertEqual('other-bytes', state)
        self.assertEqual(before, self.content())

    @ddt.data(
        ('cut off', 'truncated'),
        ('slow', 'timeout'),
        ('longer', 'truncated'),
        ('deleted', 'gone'),
        ('hidden', 'not-found'),
        ('down', 'unreachable'),
        ('forbidden', 'forbidden'),
        ('other size', 'other-bytes'),
        ('hostile', 'hostile'),
        ('whole and other', 'other-bytes'),
    )
    @ddt.unpack
    def test_each_failure_is_a_state_and_the_file_stays_as_it_is(
        self, what: str, state: str
    ) -> None:
        server = self.serve()
        stored = server.stored
        faults = {
            'cut off': image_server.Handler.cut_off,
            'longer': lambda it: it.send_body(
                206,
                self.data[BLOCK : 2 * BLOCK] + b'x',
                Content_Range=f'bytes {BLOCK}-{2 * BLOCK - 1}/'
                f'{len(self.data)}',
            ),
            'down': lambda it: it.reply(503),
            'forbidden': lambda it: it.reply(403),
        }
        stored.fault = faults.get(what)
        if what == 'slow':
            self.patch(image_api, '_PATIENCE_SECONDS', -BLOCK)
        elif what in ('deleted', 'hidden'):
            stored.record_code = 404
            asker = askers.Asker('p', what == 'deleted')
            self.patch(askers, 'who_asks', lambda _client: asker)
        elif what == 'other size':
            stored.size = len(self.data) + 1
        elif what == 'hostile':
            stored.disk_format = 'qcow2'
            # With a backing file.
            header = struct.pack('>4sIQI', b'QFI\xfb', 3, 1024, 4)
            with open(self.copy, 'wb') as file:
                file.write(header.ljust(2 * BLOCK, b'\0'))
        elif what == 'whole and other':
            stored.rangeless, stored.stores = ('one',), 'one'
            stored.os_hash_value = 'ab' * 64
            self.patch(streams, '_RESERVE', 0)
        self.damage(1)
        before = (self.content(), self.identity())
        code, blocks, summary, stderr = self.repair('--image', image_server.ID)
        self.assertEqual(3, code, stderr)
        self.assertEqual('no-data', blocks[0]['result'])
        told = summary['sources']['image-service']
        self.assertEqual(state, told['state'], told['message'])
        self.assertIn(f'[P19] image-service: {state}: ', stderr)
        self.assertEqual(before, (self.content(), self.identity()))
        self.assertEqual({1: scrubbing.CORRUPT}, self.bad(self.name))

    def test_of_two_stores_the_one_that_has_the_data_gives_it(self) -> None:
        """Of the block that the other one has wrong, and no more."""
        other = os.path.join(self.temporary, 'other')
        with open(other, 'wb') as file:
            file.write(self.data[:BLOCK] + b'?' + self.data[BLOCK + 1 :])
        server = self.serve(stores='one,two', paths={'one': other})
        self.damage(1, 2)
        code, blocks, summary, stderr = self.repair('--image', image_server.ID)
        self.assertEqual(0, code, stderr)
        self.assertIn('in store two', blocks[0]['source'])
        self.assertEqual('image-service', blocks[1]['source'].split()[0])
        # Both from whoever has them, and one from each store.
        self.assertEqual(4 * BLOCK, server.sent)
        fetched = summary['fetched']['image-service']
        self.assertLessEqual(fetched, 4 * BLOCK + 64 * base.KIB)
        # It is said that some store has the image damaged.
        told = summary['sources']['image-service']
        self.assertEqual('other-bytes', told['state'])
        self.assert_healed()

    def test_what_is_here_is_asked_before_the_image_service(self) -> None:
        server = self.serve()
        self.damage(1)
        sibling = f'{self.name}_{len(self.data)}'
        self.node.add_base(sibling, data=self.data)
        code, blocks, _summary, stderr = self.repair(
            '--image', image_server.ID
        )
        self.assertEqual(0, code, stderr)
        self.assertIn('siblings', blocks[0]['source'])
        self.assertEqual([], server.requests)
