# SPDX-License-Identifier: Apache-2.0

"""Decoding a range of an image by qemu-img, with bounds.

Files have names, as qemu-img may be another user's process than the one that
has opened them: a process that was root once is nobody's to look into. What is
left of them by whoever is killed, the next passes sweep away.
"""

import errno
import json
import os
import tempfile
from typing import cast
from typing import IO

from oslo_concurrency import processutils
from oslo_utils.imageutils import format_inspector
from oslo_utils import units

from nova_imagecache import children
from nova_imagecache.heal import sources
from nova_imagecache import names

State = sources.State

# As QEMU_IMG_LIMITS in nova/virt/images.py: hostile images have made qemu-img
# take all memory (CVE-2015-5162). And no file may be larger than what is
# wanted of it.
_CPU_SECONDS = 30
# It has a thread for each cluster that it decompresses.
_ADDRESS_SPACE = 4 * units.Gi
_TIMEOUT_SECONDS = 120
# As LC_ALL=C has it.
_FULL = os.strerror(errno.ENOSPC)

# What QEMU calls the formats that the image service knows.
_DRIVERS = {
    'qcow2': 'qcow2',
    'vmdk': 'vmdk',
    'vhd': 'vpc',
    'vhdx': 'vhdx',
    'vdi': 'vdi',
}


class _Unclosed:
    """A file that whoever inspects it leaves open."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read = file.read


def inspect(file: IO[bytes], disk_format: str) -> int:
    """See that an image needs no other file, and is what it is said to be.

    :param disk_format: what the image service calls its format
    :returns: bytes in its content
    :raises sources.Unavailable: it is not to be decoded
    """
    if disk_format not in _DRIVERS:
        raise sources.Unavailable(
            State.HOSTILE,
            f'images of format {names.printable(disk_format)} are not decoded',
        )
    file.seek(0)
    wrapper = format_inspector.InspectWrapper(cast(IO[bytes], _Unclosed(file)))
    try:
        while wrapper.read(4096) and not wrapper.formats:
            pass
        wrapper.close()
        found = wrapper.format
        if found is None or str(found) != disk_format:
            raise sources.Unavailable(
                State.HOSTILE,
                f'the image is {found} and not {disk_format}, as it is said '
                'to be',
            )
        found.safety_check()
        return int(found.virtual_size)
    except format_inspector.SafetyCheckFailed as error:
        problem = '; '.join(sorted(map(str, error.failures)))
    except format_inspector.ImageFormatError as error:
        problem = str(error)
    except (ValueError, ArithmeticError, LookupError) as error:
        problem = f'its header makes no sense ({error})'
    raise sources.Unavailable(
        State.HOSTILE,
        f'the image is not decoded: {names.printable(problem)}',
    )


def decode(
    image: IO[bytes],
    disk_format: str,
    start: int,
    length: int,
    directory: str,
    watch: sources.Watch,
) -> bytes:
    """Give some bytes of the content of an image.

    :param start: offset in the content; all of them are in there
    :param directory: where there is room for them
    :raises sources.Unavailable: qemu-img cannot decode them
    """
    image.flush()
    # QEMU counts in sectors.
    first = start - start % 512
    size = -(-(start + length) // 512) * 512 - first
    node = {
        'driver': 'raw',
        'offset': first,
        'size': size,
        'file': {
            'driver': _DRIVERS[disk_format],
            'file': {
                'driver': 'file',
                'filename': _path(image),
                'locking': 'off',
            },
        },
    }
    with tempfile.NamedTemporaryFile(dir=directory) as target:
        target.truncate(size)
        _run(
            'qemu-img', 'convert', '-n', '-O', 'raw',
            f'json:{json.dumps(node)}', _path(target),
            limit=size,
            watch=watch,
        )  # fmt: skip
        data = os.pread(target.fileno(), length, start - first)
    if len(data) != length:
        raise sources.Unavailable(
            State.TRUNCATED, f'qemu-img gave {len(data)} of {length} bytes'
        )
    return data


def _path(file: IO[bytes]) -> str:
    return str(file.name)


def _run(*command: str, limit: int, watch: sources.Watch) -> None:
    limits = processutils.ProcessLimits(
        cpu_time=_CPU_SECONDS, address_space=_ADDRESS_SPACE, file_size=limit
    )
    try:
        done = children.run(
            *command,
            timeout=_TIMEOUT_SECONDS,
            look=watch.look,
            limits=limits.prlimit_args(),
            env={**os.environ, 'LC_ALL': 'C', 'MALLOC_ARENA_MAX': '2'},
        )
    except children.TimedOut as error:
        raise sources.Unavailable(
            State.TIMEOUT,
            f'qemu-img has not decoded the image in {_TIMEOUT_SECONDS} s',
        ) from error
    except OSError as error:
        raise sources.Unavailable(
            State.NOT_CONFIGURED, f'qemu-img cannot be run: {error.strerror}'
        ) from error
    if done.returncode:
        said = os.fsdecode(done.stdout + b'\n' + done.stderr).splitlines()
        status = f'it ended with status {done.returncode}'
        last = [status, *filter(str.strip, said)][-1]
        raise sources.Unavailable(
            State.NO_SPACE if _FULL in last else State.HOSTILE,
            f'qemu-img cannot decode the image: {names.printable(last[:300])}',
        )
