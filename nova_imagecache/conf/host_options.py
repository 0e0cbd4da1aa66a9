# SPDX-License-Identifier: Apache-2.0

"""Options of the host's that we read, for programs that are not the host.

Defaults as in nova/conf/paths.py, netconf.py and compute.py of Nova 34.
"""

from collections.abc import Iterable
import importlib.machinery
import importlib.util
import os
import socket

from oslo_config import cfg

#: What an empty ``connection_uri`` means with most values of ``virt_type``.
DEFAULT_URI = 'qemu:///system'


def _has_nova(paths: Iterable[str]) -> bool:
    """Whether this is Nova, and not just what others put beside it.

    Packages of other projects put modules into Nova's namespace, as our own
    driver does.
    """
    found = importlib.machinery.PathFinder.find_spec('nova.conf', [*paths])
    return found is not None


def _pybasedir() -> str:
    """Find the directory that holds the nova package, or else this one.

    As ``pybasedir`` of nova/conf/paths.py, without importing Nova.
    """
    nova = importlib.util.find_spec('nova')
    for path in (nova and nova.submodule_search_locations) or ():
        if _has_nova([path]):
            return os.path.dirname(os.path.abspath(path))
    return os.path.dirname(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    )


def _my_ip() -> str:
    """Give the address from which this host talks to others.

    As ``get_my_ipv4`` of oslo.utils, the default in nova/conf/netconf.py; that
    takes long to import, and is asked where there is no route.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            # Nothing is sent. RFC 5737: it is nobody's address.
            asked.connect(('192.0.2.0', 80))
            return str(asked.getsockname()[0])
    except OSError:
        from oslo_utils import netutils

        return str(netutils.get_my_ipv4())


OPTS = [
    cfg.StrOpt(
        'pybasedir',
        default=_pybasedir(),
        sample_default='<Path>',
        help="""
Directory in which the Nova Python modules are installed.

The default of ``state_path`` derives from it, as in Nova.
""",
    ),
    cfg.StrOpt(
        'state_path',
        default='$pybasedir',
        help="""
Top-level directory of Nova's state.

The default of ``instances_path`` derives from it, as in Nova.
""",
    ),
    cfg.StrOpt(
        'instances_path',
        default=os.path.join('$state_path', 'instances'),
        help="""
Where the instances' disks are, and the image cache below them.

An absolute path, on local storage or on a network file system.

Related options:

* ``[image_cache]/subdirectory_name``
""",
    ),
    cfg.StrOpt(
        'my_ip',
        default=_my_ip(),
        sample_default='<host_ipv4>',
        help="""
Address of this host on the management network.

Other options may refer to it, as in ``_base_$my_ip``.
""",
    ),
    cfg.StrOpt(
        'host',
        default=socket.gethostname(),
        sample_default='<current_hostname>',
        help="""
Name of this host, as the compute service knows it.

Where hosts share a cache, each remembers its own last pass under this name.
""",
    ),
]

#: In the group ``[libvirt]``; as nova/conf/libvirt.py.
LIBVIRT_OPTS = [
    cfg.StrOpt(
        'virt_type',
        default='kvm',
        choices=('kvm', 'lxc', 'qemu', 'parallels'),
        help="""
Type of the domains, from which the default of ``connection_uri`` follows.
""",
    ),
    cfg.StrOpt(
        'connection_uri',
        default='',
        help="""
URI of the libvirt whose domains may use base files.

Asked only where the host does not lend its own connection, and read-only.

Possible values:

* empty: ``lxc:///`` or ``parallels:///system`` for these values of
  ``virt_type``, else ``qemu:///system``
* any URI of a libvirt for this host. One of another host, or of a user's own
  session, does not know this host's guests, so it does not count.

Related options:

* ``virt_type``
""",
    ),
]
