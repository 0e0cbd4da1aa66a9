# SPDX-License-Identifier: Apache-2.0

"""One block from the image service, beside all of the image.

The peer is what else there is to do: download the image again, and convert it
where Nova does. Both ask the same server on this machine, by the same client.
"""

import functools
import os
import re
import subprocess
import time

import common
from oslo_utils import units

from nova_imagecache.heal import sources
from nova_imagecache.heal.sources import image_service
from nova_imagecache import names
from tests.support import image_server

_BLOCK = 4 * units.Mi
# In the middle of the disk, and with data in it.
_AT = 1201
_SHARE = 2


class _Handler(image_server.Handler):
    """Reads no more of a file than is asked for."""

    def _record(self) -> None:
        stored = self.images.stored
        self.reply_json(
            200,
            {
                'id': image_server.ID,
                'status': 'active',
                'disk_format': stored.disk_format,
                'size': os.path.getsize(stored.path),
            },
        )

    def _data(self, query: str) -> None:
        with open(self.images.stored.path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            match = re.fullmatch(
                r'bytes=(\d+)-(\d+)', self.headers.get('Range') or ''
            )
            first, last = map(int, match.groups()) if match else (0, size - 1)
            self.send_response(206 if match else 200)
            self.send_header('Content-Length', str(last - first + 1))
            self.send_header('Content-Range', f'bytes {first}-{last}/{size}')
            self.end_headers()
            self.wfile.flush()
            while first <= last:
                first += os.sendfile(
                    self.connection.fileno(),
                    file.fileno(),
                    first,
                    last + 1 - first,
                )


def make_disk(path: str, size: int) -> None:
    """Make a disk of which a half is noise, in pieces all over it."""
    piece = os.urandom(_BLOCK)
    with open(path, 'wb') as file:
        file.truncate(size)
        for start in range(_BLOCK, size, _SHARE * _BLOCK):
            file.seek(start)
            # No two are the same.
            file.write(start.to_bytes(16, 'big') + piece[16:])


def heal(source: image_service.ImageService, base: sources.Base) -> bytes:
    """Get one block."""
    wanted = sources.Wanted(_AT * _BLOCK, _BLOCK)
    (piece,) = source.read(base, [wanted])
    return piece.data


def download(
    source: image_service.ImageService, target: str, convert: bool
) -> None:
    """Get all of the image, and convert it, as Nova does."""
    part = f'{target}.part'
    with open(part, 'wb') as file:
        for chunk in source.api.whole(source.api.image(image_server.ID)):
            file.write(chunk)
    if convert:
        subprocess.run(
            ['qemu-img', 'convert', '-t', 'none', '-O', 'raw', '-f', 'qcow2',
             part, target],
            check=True,
        )  # fmt: skip
        os.unlink(part)
    else:
        os.rename(part, target)
    with open(target, 'rb') as file:
        os.fsync(file.fileno())


def measure(path: str, disk_format: str, raw: str, directory: str) -> None:
    """Do both, and print each beside the other."""
    base = sources.Base(
        names.get_cache_fname(image_server.ID),
        raw,
        os.path.getsize(raw),
        image_server.ID,
    )
    stored = image_server.Stored(path, disk_format=disk_format)
    with image_server.ImageServer(stored, _Handler) as server:
        client = server.client()
        source = functools.partial(
            image_service.ImageService, lambda: client, directory
        )
        one = source()
        began = time.monotonic()
        data = heal(one, base)
        healing = time.monotonic() - began
        with open(raw, 'rb') as file:
            file.seek(_AT * _BLOCK)
            if file.read(_BLOCK) != data:
                raise SystemExit(f'{disk_format}: the block is not right')
        whole = source()
        target = os.path.join(directory, 'again')
        began = time.monotonic()
        download(whole, target, disk_format != 'raw')
        downloading = time.monotonic() - began
        os.unlink(target)
    print(
        f'{os.path.basename(path)}: one block {healing:.3f} s and '
        f'{one.fetched / units.Mi:.2f} MiB; again {downloading:.1f} s and '
        f'{whole.fetched / units.Mi:.0f} MiB; again / one block: '
        f'{downloading / healing:.0f} in time, '
        f'{whole.fetched / one.fetched:.0f} in bytes'
    )


def main() -> None:
    """Measure each kind of image."""
    parser = common.parser(__doc__, rounds=1, parts=('raw', 'qcow2'))
    parser.add_argument('--size', type=common.gib, default='10', help='in GiB')
    options = parser.parse_args()
    with common.workspace(options.directory) as directory:
        raw = os.path.join(directory, 'raw')
        make_disk(raw, options.size)
        for _round in range(options.rounds):
            for disk_format in options.only:
                path = raw
                if disk_format != 'raw':
                    path = os.path.join(directory, disk_format)
                    subprocess.run(
                        ['qemu-img', 'convert', '-O', disk_format, raw, path],
                        check=True,
                    )
                measure(path, disk_format, raw, directory)


if __name__ == '__main__':
    main()
