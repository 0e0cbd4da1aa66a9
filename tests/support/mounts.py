# SPDX-License-Identifier: Apache-2.0

"""File systems that tests mount. Most take root, and loop devices."""

import contextlib
import os
import shutil

from tests.support import base
from tests.support import nodes
from tests.support import processes


class MountingTestCase(nodes.FileTestCase):
    """A test that mounts file systems, and unmounts them in the end."""

    def setUp(self) -> None:
        super().setUp()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def need(self, *programs: str) -> None:
        for program in programs:
            if shutil.which(program, path=processes.PATH) is None:
                self.skipTest(f'{program} is not installed')

    def loop(self, path: str, stack: contextlib.ExitStack) -> str:
        try:
            device = processes.run('losetup', '--find', '--show', path)
        except RuntimeError as error:
            self.skipTest(f'there are no loop devices: {error}')
        stack.callback(processes.run, 'losetup', '--detach', device)
        return device

    def mount_new(self, name: str, *command: str) -> str:
        """Make a file system with a command; give where it is mounted."""
        self.need(command[0])
        if os.geteuid() != 0:
            self.skipTest('only root can mount file systems')
        disk = os.path.join(self.temporary, f'{name}.disk')
        point = os.path.join(self.temporary, name)
        os.mkdir(point)
        with open(disk, 'wb') as file:
            file.truncate(320 * base.MIB)
        processes.run(*command, disk)
        device = self.loop(disk, self.stack)
        try:
            processes.run('mount', device, point)
        except RuntimeError as error:
            self.skipTest(f'it cannot be mounted here: {error}')
        self.stack.callback(processes.run, 'umount', point)
        return point

    def mount_without_birth_times(self, source: str, point: str) -> None:
        """Show a directory in another place, as a FUSE file system does."""
        self.need('bindfs')
        os.makedirs(point, exist_ok=True)
        try:
            # As its server, it is asked each time.
            processes.run(
                'bindfs', '-o', 'attr_timeout=0,entry_timeout=0', source, point
            )
        except RuntimeError as error:
            self.skipTest(f'there is no FUSE here: {error}')
        self.stack.callback(processes.run, 'umount', point)
