# SPDX-License-Identifier: Apache-2.0

"""Registering the options, beside a host that may have some of its own."""

from collections.abc import Iterable

from oslo_config import cfg

from nova_imagecache.conf import host_options
from nova_imagecache.conf import image_cache


def _register(
    conf: cfg.ConfigOpts,
    opts: Iterable[cfg.Opt],
    group: str | None = None,
) -> None:
    for opt in opts:
        try:
            conf.register_opt(opt, group=group)
        except cfg.DuplicateOptError:
            # The host's definition of its own option wins.
            continue


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register what the manager reads; twice does no harm.

    An option that the host has registered already stays as the host defined
    it. Call this after the host's own registrations: oslo.config refuses a
    second definition with another help text, in either order, and only ours
    gives way.
    """
    _register(conf, host_options.OPTS)
    _register(conf, host_options.LIBVIRT_OPTS, group='libvirt')
    conf.register_group(image_cache.make_group())
    # Read anew in each pass, so they may change under a running service.
    for opt in image_cache.OWN_OPTS:
        opt.mutable = True
    _register(conf, image_cache.ALL_OPTS, group=image_cache.GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for oslo-config-generator and the documentation."""
    return [
        ('DEFAULT', list(host_options.OPTS)),
        ('libvirt', list(host_options.LIBVIRT_OPTS)),
        (image_cache.GROUP, list(image_cache.ALL_OPTS)),
    ]
