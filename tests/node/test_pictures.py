# SPDX-License-Identifier: Apache-2.0

"""The page of the exporter in a real browser.

With ``NOVA_IMAGECACHE_PICTURES=1`` the picture in the documentation is made
anew.
"""

import functools
import os
import shutil
import subprocess

from nova_imagecache.cache import image_names
from nova_imagecache.outlets import exporter
from nova_imagecache.outlets import exposition
from nova_imagecache.outlets import figures
from nova_imagecache.witnesses import vetoing
from tests.support import fake_witnesses
from tests.support import nodes
from tests.support import processes

IMAGE = 'bdd640fb-0667-4ad1-9c80-317fa3b1799d'
TITLES = {
    '11111111-aaaa-4aaa-8aaa-000000000001': 'web-3',
    '22222222-bbbb-4bbb-8bbb-000000000002': 'db-1',
}
PICTURE = os.path.join(
    os.path.dirname(__file__), '../../doc/source/admin/exporter.png'
)
PNG = b'\x89PNG\r\n\x1a\n'


class PageTest(nodes.NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        if shutil.which('chromium') is None:
            self.skipTest('chromium is not installed')
        self.node.configure(checksum=True, host='compute1')
        name = self.node.add_image(IMAGE)
        for number in range(3):
            self.node.add_image(str(number))
        for guest in TITLES:
            self.node.add_overlay(guest, name)
        blind = vetoing.Veto(
            vetoing.Reason.UNANSWERED,
            'libvirt at qemu:///system',
            'no answer within 10 s',
        )
        witness = fake_witnesses.Looks(
            titles=TITLES, images={name: IMAGE}, vetoes=(blind,)
        )
        self.node.run(witness)
        image_names.note(self.node.layout, IMAGE, 'ubuntu-24.04')
        nodes.flip_bit(self.node.base_path(name))
        report = self.node.run(witness)
        self.assertEqual([], figures.keep(self.node.settings, report))
        gather = functools.partial(
            exposition.gather, self.node.layout, 'compute1'
        )
        server = exporter.Server(
            exporter.Application(gather), ('127.0.0.1', 0)
        )
        serving = exporter.served(server)
        serving.__enter__()
        self.addCleanup(serving.__exit__, None, None, None)
        self.url = f'http://127.0.0.1:{server.server_port}/'

    def browse(self, *arguments: str) -> str:
        done = subprocess.run(
            [
                'chromium', '--headless', '--no-sandbox', '--disable-gpu',
                '--hide-scrollbars', '--window-size=900,960',
                '--disable-background-networking',
                f'--user-data-dir={self.temporary}/browser', *arguments,
                self.url,
            ],
            capture_output=True,
            text=True,
            timeout=2 * processes.PATIENCE_SECONDS,
            env={**os.environ, 'HOME': self.temporary},
        )  # fmt: skip
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def test_a_browser_shows_what_is_wrong_first(self) -> None:
        shown = self.browse('--dump-dom')
        head = shown.partition('<h2>')[0]
        self.assertIn('<p class="word">DAMAGED</p>', head)
        self.assertIn('1 base file is damaged; 2 guests read it.', head)
        self.assertIn('nova-imagecache explain ', head)
        for guest, title in TITLES.items():
            self.assertIn(f'{guest} {title}', shown)

    def test_a_browser_draws_it(self) -> None:
        path = os.path.join(self.temporary, 'page.png')
        self.browse(f'--screenshot={path}')
        with open(path, 'rb') as file:
            self.assertEqual(PNG, file.read(len(PNG)))
        if os.environ.get('NOVA_IMAGECACHE_PICTURES'):
            shutil.copyfile(path, PICTURE)

    def test_the_picture_in_the_documentation_is_there(self) -> None:
        with open(PICTURE, 'rb') as file:
            self.assertEqual(PNG, file.read(len(PNG)))
