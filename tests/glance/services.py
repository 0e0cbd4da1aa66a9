# SPDX-License-Identifier: Apache-2.0

"""A real Glance with a file store, and nothing else of a cloud."""

from collections.abc import Callable
from collections.abc import Iterable
from http import server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from typing import Any
import urllib.request

import fixtures
import openstack

from tests.support import image_server

_TOP = pathlib.Path(__file__).parents[2]

#: That of the documentation.
POLICY = _TOP / 'doc' / 'source' / 'admin' / 'glance-policy.yaml'

_BIN = pathlib.Path(sys.prefix) / 'bin'
_SECONDS = 120

_CONF = """
[DEFAULT]
enabled_backends = fs:file,other:file
enabled_import_methods = [copy-image]
use_keystone_limits = false

[database]
connection = sqlite:///{path}/glance.sqlite

[fs]
filesystem_store_datadir = {path}/images

[other]
filesystem_store_datadir = {path}/other

[glance_store]
default_backend = fs

[os_glance_staging_store]
filesystem_store_datadir = {path}/staging

[os_glance_tasks_store]
filesystem_store_datadir = {path}/tasks

[oslo_policy]
policy_file = {path}/policy.yaml

[paste_deploy]
config_file = {path}/glance-api-paste.ini
flavor = keystone
"""

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def identity_filter(
    _global_conf: Any, **_conf: str
) -> Callable[[Application], Application]:
    """Believe what a token says of itself: a project and roles.

    In the place of authtoken, which answers 401 to a token that is none.
    """

    def wrap(application: Application) -> Application:
        def identified(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            token = environ.get('HTTP_X_AUTH_TOKEN', 'service:admin')
            project, colon, roles = token.partition(':')
            if not colon:
                start('401 Unauthorized', [('Content-Length', '0')])
                return []
            identity = {
                'HTTP_X_IDENTITY_STATUS': 'Confirmed',
                'HTTP_X_USER_ID': project,
                'HTTP_X_PROJECT_ID': project,
                'HTTP_X_ROLES': roles,
            }
            return application(environ | identity, start)

        return identified

    return wrap


class Keystone(server.BaseHTTPRequestHandler):
    """Gives who logs in a token that is his name: a project and roles."""

    glance = ''

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Say which version this is."""
        url = f'http://{self.headers["Host"]}/v3'
        link = {'rel': 'self', 'href': url}
        version = {'id': 'v3.14', 'status': 'stable', 'links': [link]}
        self._reply(200, {'version': version})

    def do_POST(self) -> None:
        """Let somebody in."""
        body = self.rfile.read(int(self.headers['Content-Length']))
        user = json.loads(body)['auth']['identity']['password']['user']
        project, _colon, roles = user['name'].partition(':')
        domain = {'id': 'default', 'name': 'Default'}
        endpoint = {
            'id': 'one', 'interface': 'internal', 'region': 'one',
            'region_id': 'one', 'url': self.glance,
        }  # fmt: skip
        token = {
            'methods': ['password'],
            'expires_at': '2099-01-01T00:00:00.000000Z',
            'issued_at': '2026-01-01T00:00:00.000000Z',
            'user': {'id': project, 'name': project, 'domain': domain},
            'project': {'id': project, 'name': project, 'domain': domain},
            'catalog': [
                {
                    'type': 'image',
                    'name': 'glance',
                    'id': 'image',
                    'endpoints': [endpoint],
                }
            ],
            'roles': [{'id': each, 'name': each} for each in roles.split(',')],
        }
        self._reply(201, {'token': token}, user['name'])

    def _reply(self, code: int, value: Any, token: str = '') -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        if token:
            self.send_header('X-Subject-Token', token)
        self.end_headers()
        self.wfile.write(body)


class Glance(fixtures.Fixture):
    """Runs until it is cleaned up."""

    def _setUp(self) -> None:
        self.path = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name in ('images', 'other', 'staging', 'tasks'):
            (self.path / name).mkdir()
        conf = self.path / 'glance-api.conf'
        conf.write_text(_CONF.format(path=self.path))
        shutil.copy(POLICY, self.path / 'policy.yaml')
        paste = self.path / 'glance-api-paste.ini'
        shutil.copy(
            pathlib.Path(sys.prefix) / 'etc/glance/glance-api-paste.ini', paste
        )
        text = paste.read_text()
        ours = f'{__name__}:identity_filter'
        theirs = 'keystonemiddleware.auth_token:filter_factory'
        if theirs not in text:
            raise AssertionError('the paste file of Glance is another')
        paste.write_text(text.replace(theirs, ours))
        environment = os.environ | {
            'OS_GLANCE_CONFIG_DIR': str(self.path),
            'PYTHONPATH': str(_TOP),
        }
        subprocess.run(
            [_BIN / 'glance-manage', '--config-file', conf, 'db_sync'],
            check=True,
            capture_output=True,
            env=environment,
        )
        port = image_server.unused_port()
        self.url = f'http://127.0.0.1:{port}'
        (self.path / 'gunicorn.conf.py').write_text(
            "wsgi_app = 'glance.wsgi.api:application'\n"
            f"bind = '127.0.0.1:{port}'\n"
            "worker_class = 'gthread'\nthreads = 4\ntimeout = 600\n"
        )
        self.log = self.path / 'log'
        with open(self.log, 'wb') as log:
            process = subprocess.Popen(
                [_BIN / 'gunicorn'],
                # Without arguments, as Glance reads those as its own.
                env=environment
                | {'GUNICORN_CMD_ARGS': f'-c {self.path}/gunicorn.conf.py'},
                stdout=log,
                stderr=log,
                cwd=self.path,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        self._wait(process)
        self.keystone = self._begin_keystone()

    def _begin_keystone(self) -> str:
        handler = type('Bound', (Keystone,), {'glance': self.url})
        http = server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
        http.daemon_threads = True
        thread = threading.Thread(
            target=http.serve_forever, args=(0.01,), daemon=True
        )
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(http.server_close)
        self.addCleanup(http.shutdown)
        return f'http://127.0.0.1:{http.server_address[1]}/v3'

    def _wait(self, process: 'subprocess.Popen[bytes]') -> None:
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f'{self.url}/healthcheck'):
                    return
            except OSError as error:
                if getattr(error, 'code', 0) in (300, 404):
                    return
                time.sleep(0.1)
        raise AssertionError(self.log.read_text(errors='replace')[-4000:])

    def as_user(self, token: str) -> Any:
        """Connect as a user; see :func:`identity_filter`."""
        return openstack.connect(
            load_envvars=False,
            load_yaml_config=False,
            auth_type='admin_token',
            auth={'endpoint': self.url, 'token': token},
            image_endpoint_override=self.url,
        )

    def upload(self, path: str, disk_format: str) -> str:
        """Make a private image; give its ID."""
        image: str = (
            self.as_user('tenant:member,reader')
            .image.create_image(
                'disk',
                filename=path,
                container_format='bare',
                disk_format=disk_format,
                visibility='private',
                wait=True,
                allow_duplicates=True,
            )
            .id
        )
        return image

    def copy_to_the_other_store(self, image: str) -> None:
        """Have both stores have an image, each of them in a file."""
        api = self.as_user('service:admin').image
        answer = api.post(
            f'/images/{image}/import',
            json={
                'method': {'name': 'copy-image'},
                'stores': ['other'],
                'all_stores_must_succeed': True,
            },
        )
        if answer.status_code != 202:
            raise AssertionError(answer.text)
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            record = api.get(f'/images/{image}').json()
            if record['stores'] == 'fs,other':
                return
            time.sleep(0.1)
        raise AssertionError(record)

    def nova_conf_with_roles(self, token: str) -> str:
        """Give the same for one who logs in, and so knows his roles."""
        project, _colon, _roles = token.partition(':')
        return (
            f'[service_user]\nauth_type = password\nusername = {token}\n'
            f'auth_url = {self.keystone}\npassword = secret\n'
            f'project_name = {project}\nuser_domain_id = default\n'
            'project_domain_id = default\n'
        )

    def nova_conf(self, token: str) -> str:
        """Give the part of nova.conf that says how to ask it."""
        return (
            '[service_user]\nauth_type = admin_token\n'
            f'endpoint = {self.url}\ntoken = {token}\n'
            f'[glance]\nendpoint_override = {self.url}\n'
        )
