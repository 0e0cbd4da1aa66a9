# SPDX-License-Identifier: Apache-2.0

"""Judging images before they are cached, and making disks from them."""

import dataclasses
import os
from typing import cast

from oslo_concurrency import processutils
from oslo_utils.imageutils import format_inspector
from oslo_utils import units

from nova_imagecache.cache import identity
from nova_imagecache import errors

# What the format inspector may find, by the format that the image service
# claims; as do_image_deep_inspection in nova/virt/images.py.
_ANY_RAW = frozenset({'raw', 'gpt', 'iso'})
_ACCEPTED = {
    'raw': frozenset({'raw', 'gpt'}),
    'iso': frozenset({'iso'}),
    'qcow2': frozenset({'qcow2'}),
    'ami': _ANY_RAW,
    'aki': _ANY_RAW,
    'ari': _ANY_RAW,
}
_ANY_ACCEPTED = frozenset().union(*_ACCEPTED.values())

_CHUNK = 4096

# As QEMU_IMG_LIMITS in nova/virt/images.py: hostile images have made qemu-img
# take all memory (CVE-2015-5162).
_LIMITS = processutils.ProcessLimits(cpu_time=30, address_space=units.Gi)


@dataclasses.dataclass(frozen=True)
class Image:
    """An image that passed inspection.

    :ivar format: 'raw' or 'qcow2', as QEMU is to open it
    :ivar virtual_size: in bytes, as a guest sees it
    """

    format: str
    virtual_size: int


def _detect(path: str) -> format_inspector.FileInspector:
    """Find the format, reading no more than the inspectors need.

    As ``get_image_format`` in nova/virt/images.py: an ISO may have a GPT.
    """
    fd = identity.open_regular(path)
    with os.fdopen(fd, 'rb', buffering=0) as file:
        wrapper = format_inspector.InspectWrapper(file)
        while wrapper.read(_CHUNK) and not wrapper.formats:
            pass
        wrapper.close()
    found = {str(each): each for each in wrapper.formats or ()}
    if found.keys() == {'iso', 'gpt'}:
        return found['iso']
    return cast(format_inspector.FileInspector, wrapper.format)


def inspect(path: str, disk_format: str | None = None) -> Image:
    """Judge an image by its headers.

    :param disk_format: what the image service says it is, if anything
    :raises nova_imagecache.errors.ImageRefused: it would have QEMU open other
        files, is not what it is said to be, or is neither raw nor qcow2
    :raises OSError: it cannot be read
    """
    accepted = _ACCEPTED.get(disk_format) if disk_format else _ANY_ACCEPTED
    if accepted is None:
        raise errors.ImageRefused(
            f'images of format {disk_format!r} are not cached; convert it to '
            'raw or qcow2 when fetching it'
        )
    try:
        inspector = _detect(path)
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        problems = '; '.join(
            f'{check}: {failure}' for check, failure in error.failures.items()
        )
        raise errors.ImageRefused(
            f'the image fails the safety check: {problems}'
        ) from error
    except format_inspector.ImageFormatError as error:
        raise errors.ImageRefused(
            f'the format of the image is not clear: {error}'
        ) from error
    found = str(inspector)
    if found not in accepted:
        expected = f' and not {disk_format}' if disk_format else ''
        raise errors.ImageRefused(
            f'the image is of format {found}{expected}; raw and qcow2 images '
            'are cached'
        )
    if found == 'qcow2':
        return Image(found, int(inspector.virtual_size))
    return Image('raw', os.path.getsize(path))


def _execute(
    *command: str, limits: processutils.ProcessLimits | None = _LIMITS
) -> None:
    try:
        processutils.execute(
            *command,
            prlimit=limits,
            env_variables={**os.environ, 'LC_ALL': 'C'},
        )
    except processutils.ProcessExecutionError as error:
        said = f'{error.stdout or ""}\n{error.stderr or ""}'.split('\n')
        lines = [line for line in said if line.strip()] or [str(error)]
        raise errors.FetchFailed(
            f'{command[0]} {command[1]}: {lines[-1]}'
        ) from error
    except OSError as error:
        raise errors.FetchFailed(
            f'{command[0]} cannot be run: {error.strerror}'
        ) from error


def create_overlay(
    overlay: str, base_file: str, base: Image, size: int | None
) -> None:
    """Make a qcow2 disk that reads through to a base file.

    :param overlay: absolute path of the disk
    :param size: its virtual size in bytes, by default the base file's
    :raises nova_imagecache.errors.FetchFailed: qemu-img failed
    """
    command = ['qemu-img', 'create', '-q', '-f', 'qcow2']
    command += ['-b', base_file, '-F', base.format, overlay]
    _execute(*command, *([] if size is None else [str(size)]))


def copy_resized(source: str, target: str, image: Image, size: int) -> None:
    """Copy a base file and let the copy grow, without taking space for it.

    :param size: virtual size of the copy in bytes
    :raises nova_imagecache.errors.FetchFailed: cp or qemu-img failed
    """
    # Without the limits: copying gigabytes takes its time.
    _execute('cp', '--reflink=auto', source, target, limits=None)
    _execute('qemu-img', 'resize', '-q', '-f', image.format, target, str(size))
