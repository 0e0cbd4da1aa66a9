# SPDX-License-Identifier: Apache-2.0

"""Run the tests in namespaces of their own.

No process, mount, address or user of theirs is seen outside, and all of them
end with the first process in there.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

_PATH = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'

# The shell is the first process in there, and reaps orphans.
_ENTER = (
    'setpriv', '--pdeathsig', 'KILL',
    'unshare', '--mount', '--pid', '--net', '--uts', '--ipc',
    '--fork', '--kill-child', '--mount-proc',
    'sh', '-c', '"$@"; exit $?', 'sh',
)  # fmt: skip

_PROGRAMS = ('ip', 'libvirtd', 'mariadb', 'mariadb-install-db', 'mariadbd',
             'qemu-system-x86_64', 'qemu-img', 'rabbitmq-server', 'setpriv',
             'sudo', 'unshare', 'useradd')  # fmt: skip

_STORIES = ('integration.test_scenario', 'integration.test_repair')

_LINES = 60


def _end(number: int, _frame: Any) -> None:
    sys.exit(128 + number)


def _show_end(log: str) -> None:
    """Show the end of a log, if there is one."""
    if os.path.exists(log):
        with open(log, errors='replace') as file:
            lines = file.readlines()[-_LINES:]
        print(f'The end of {log}:\n{"".join(lines)}', file=sys.stderr)


def _remove(directory: str) -> None:
    """Remove a directory; those that were killed may still be ending."""
    for _attempt in range(50):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.exists(directory):
            return
        time.sleep(0.1)
    shutil.rmtree(directory)


def main() -> int:
    """Run the tests; give the exit code."""
    parser = argparse.ArgumentParser(prog='python -m integration')
    parser.add_argument('--keep', metavar='DIR', help='copy all logs to DIR')
    arguments, rest = parser.parse_known_args()
    if os.geteuid() != 0:
        parser.error('only root can start a libvirt of the system')
    missing = [
        each for each in _PROGRAMS if shutil.which(each, path=_PATH) is None
    ]
    if missing:
        parser.error(
            f'these programs are missing: {" ".join(missing)}; bindep.txt '
            'names the packages, under "integration"'
        )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    # Nova's rootwrap filters want the sockets of privsep below /tmp.
    directory = tempfile.mkdtemp(prefix='nova-imagecache-', dir='/tmp')
    logs = os.path.join(directory, 'log')
    try:
        os.chmod(directory, 0o755)
        temporary = os.path.join(directory, 'tmp')
        os.mkdir(temporary)
        os.chmod(temporary, 0o1777)
        code = subprocess.run(
            # openstacksdk warns of itself.
            [*_ENTER, sys.executable, '-W', 'ignore',
             '-m', 'unittest', '-v', '-f',
             *(rest or _STORIES)],
            env=os.environ
            | {
                'PATH': _PATH,
                'TMPDIR': temporary,
                'STACK_DIRECTORY': directory,
            },
            check=False,
        ).returncode  # fmt: skip
        if code:
            _show_end(os.path.join(logs, 'nova-compute.log'))
        return code
    finally:
        if arguments.keep and os.path.isdir(logs):
            shutil.copytree(logs, arguments.keep, dirs_exist_ok=True)
        _remove(directory)


if __name__ == '__main__':
    sys.exit(main())
