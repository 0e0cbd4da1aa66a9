# SPDX-License-Identifier: Apache-2.0

"""The options in ``[image_cache]``.

Nova's own are declared with the names, types, defaults and deprecated homes
of nova/conf/imagecache.py in Nova 34.
"""

from oslo_config import cfg
from oslo_config import types

GROUP = 'image_cache'

#: For the digests of blocks, the default first.
CHECKSUM_ALGORITHMS = ('xxh3_128', 'blake2b', 'sha256')

#: What is done about damage, the default first.
CORRUPTION_ACTIONS = ('report', 'set_aside', 'repair')

_WITNESSES = [
    ('instances', 'the instances that the service hands over'),
    ('overlays', 'the disks below instances_path'),
    ('libvirt', 'the domains of libvirt, running or not'),
    ('locks', 'the locks of running QEMUs on base files'),
]

#: The independent ways to learn who uses a base file.
WITNESSES = tuple(name for name, _what in _WITNESSES)


def make_group() -> cfg.OptGroup:
    """Make the group anew for each ConfigOpts.

    A group holds the values that are set on its options, and oslo.config
    copies it so that two ConfigOpts would share them.
    """
    return cfg.OptGroup(
        GROUP,
        title='Image cache options',
        help="""
Options of the image cache manager of a compute node.
""",
    )


#: Options that Nova has as well.
NOVA_OPTS = [
    cfg.IntOpt(
        'manager_interval',
        default=2400,
        min=-1,
        deprecated_name='image_cache_manager_interval',
        deprecated_group='DEFAULT',
        help="""
Seconds between two passes of the image cache manager.

The service that hosts the manager goes by this. The manager itself only
refuses what makes no sense.
With stock Nova, every pass also renews the timestamps of the base files that
are in use.

Possible values:

* 0: the default interval of the service's periodic tasks (not recommended)
* -1: no passes at all
* any other number of seconds; values below -1 are refused

Related options:

* ``[DEFAULT]/instances_path``
""",
    ),
    cfg.StrOpt(
        'subdirectory_name',
        default='_base',
        deprecated_name='image_cache_subdirectory_name',
        deprecated_group='DEFAULT',
        help="""
Directory of the base files, below ``instances_path``.

This is a name and not a full path. Where compute hosts share
``instances_path`` and each shall keep a cache of its own, set it to
``_base_$my_ip``.

Related options:

* ``[DEFAULT]/instances_path``
""",
    ),
    cfg.BoolOpt(
        'remove_unused_base_images',
        default=True,
        deprecated_group='DEFAULT',
        help="""
Remove base files that nobody uses once they are old enough.

A base file is unused when none of the ``witnesses`` sees a user. It goes to
the trash first.

Related options:

* ``witnesses``
* ``removed_image_retention_seconds``
* ``remove_unused_original_minimum_age_seconds``
* ``remove_unused_resized_minimum_age_seconds``
""",
    ),
    cfg.IntOpt(
        'remove_unused_original_minimum_age_seconds',
        default=24 * 3600,
        deprecated_group='DEFAULT',
        help="""
Seconds for which an unused base file is kept after its last use.

They count from when it was made, or first seen by a pass, if that is later.

Applies to original images, to swap and ephemeral base files, and to what an
interrupted fetch left behind. Values below 600 count as 600: a driver that
starts a guest touches the base file first and makes the overlay a moment
later, without a lock, and only the age of the file covers that moment.
Negative values are refused.
""",
    ),
    cfg.IntOpt(
        'remove_unused_resized_minimum_age_seconds',
        default=3600,
        deprecated_group='libvirt',
        help="""
Seconds for which an unused resized base file is kept after its last use.

A resized file can be made again from the original without the image service,
so it need not be kept as long. Values below 600 count as 600, as they do for
``remove_unused_original_minimum_age_seconds``. Negative values are refused.
""",
    ),
]


def _former_homes(name: str) -> list[cfg.DeprecatedOpt]:
    return [
        cfg.DeprecatedOpt(name, group='libvirt'),
        cfg.DeprecatedOpt(name, group='DEFAULT'),
    ]


#: Options on checksums. Nova had the first two until 2016-2019.
CHECKSUM_OPTS = [
    cfg.BoolOpt(
        'checksum_base_images',
        default=False,
        deprecated_opts=_former_homes('checksum_base_images'),
        help="""
Keep checksums of each base file and verify it from time to time.

One flipped bit in a base file is wrong data in every guest that reads it. With
this option on, a process of its own (a *scrub*) reads each base file once it
is there, slowly and past the page cache. It keeps the digest of each block of
4 MiB, and the SHA-1 of the whole file in ``<base file>.sha1``. Once in
``checksum_interval_seconds`` it reads the file again. Bytes that no longer
match are an error in the log, with the image and the guests that read them.
Checksums find corruption; they do not defend against a malicious
administrator.

Fetching an image computes nothing, so that guests start as fast as without
checksums.

Related options:

* ``checksum_interval_seconds``
* ``checksum_algorithm``
* ``scrub_bandwidth_mib_per_second``
""",
    ),
    cfg.IntOpt(
        'checksum_interval_seconds',
        default=7 * 24 * 3600,
        deprecated_opts=_former_homes('checksum_interval_seconds'),
        help="""
Seconds after which a base file is read and verified again.

The default is a week. Corruption at rest is rare, and verifying reads the
whole file from the disk that the guests are using: the hourly interval that
Nova once had kept the disks of a node busy for nothing, whereas a month would
let many backups of a damaged guest replace the good ones. Every reading
counts, the first one and those that found damage too.

No file that could be read is read earlier. For a scrub, files become due up to
a tenth of the interval later, each at its own time on each host, so that a
fleet does not read in step, and are then read within another tenth. First
readings are put off by up to a tenth of the interval as well, but by no more
than an hour. A pass that reads base files itself, as ``nova-imagecache pass``
does, spreads nothing: it reads each file once the interval is over.

Possible values:

* 0: read every file again as soon as possible
* any other number of seconds; negative values are refused

Related options:

* ``checksum_base_images``
* ``scrub_bandwidth_mib_per_second``
""",
    ),
    cfg.StrOpt(
        'checksum_algorithm',
        default=CHECKSUM_ALGORITHMS[0],
        choices=[
            ('xxh3_128', 'fastest, and enough to find any decay'),
            ('blake2b', 'cryptographic, 256 bits, where policy asks for it'),
            ('sha256', 'cryptographic, where policy asks for it'),
        ],
        help="""
Algorithm for the digests of the blocks of base files.

After a change each file gets its new digests when it is next due. The same
reading compares it with the old ones, and those stay until all of them match.

The cryptographic ones take thirty to sixty times the processor time, and are
no defence against a malicious administrator either.

Related options:

* ``checksum_base_images``
""",
    ),
    cfg.StrOpt(
        'corruption_action',
        default=CORRUPTION_ACTIONS[0],
        choices=[
            ('report', 'say what is bad, and who reads it'),
            ('set_aside', 'and set a bad base file aside if nobody uses it'),
            ('repair', 'and repair one in place that somebody uses'),
        ],
        help="""
What is done about a base file in which damage is found.

With ``set_aside`` and ``repair`` a bad base file that nobody uses goes to the
trash, pinned or not, so that the next guest gets the image fetched anew.

With ``repair`` a bad block of a file that is in use gets good data in place,
and running guests read it at once. Data is used only if it has the digest that
is known of the block. It comes from the page cache, from other files on the
host that were made from the same image, and from the image service where that
can be asked. ``nova-imagecache repair`` has other sources, and does the same
when a person asks for it, whatever this option says.

At most 20 blocks of a host are repaired at once, and that budget fills up
again by halves each hour: a disk that is dying is not written to all night.
A file is left to a person if its bad blocks lie in more than three places, or
if most of it is bad. The log, and ``nova-imagecache status``, say so.

Related options:

* ``checksum_base_images``: without it nothing is found
* ``refuse_damaged_base_images``
""",
    ),
    cfg.IntOpt(
        'scrub_bandwidth_mib_per_second',
        default=8,
        help="""
MiB per second at which base files are read at most to verify them.

The limit holds for scrubs, for passes that verify, and for ``nova-imagecache
verify``. Reading is done in pieces of 256 KiB. A scrub reads no faster than it
takes to get through what is due in time, but at 1 MiB/s at least, and slows
down further while reads take long because the disk is busy. If the limit does
not let the whole cache be read once in ``checksum_interval_seconds``, each
pass says so.

The default reads about 4.6 TiB a week.

Possible values:

* 0: no limit, in pieces of 4 MiB
* any other number of MiB per second; negative values are refused

Related options:

* ``checksum_base_images``
* ``checksum_interval_seconds``
""",
    ),
]

#: Options on what is removed, when, and on whose word.
REMOVAL_OPTS = [
    cfg.ListOpt(
        'witnesses',
        default=list(WITNESSES),
        item_type=types.String(choices=_WITNESSES),
        help="""
Who is asked whether somebody uses a base file.

The word of one is enough to keep a file. If one cannot answer, nothing is
removed in that pass. So name those that apply to this host: on one without
libvirt, leave out ``libvirt``, or every pass says that it cannot be asked, and
removes nothing.

``overlays`` cannot be left out.

Related options:

* ``[libvirt]/connection_uri``
* ``[libvirt]/virt_type``
""",
    ),
    cfg.ListOpt(
        'ignore_paths',
        default=[],
        help="""
Paths of what is below ``instances_path`` and is no disk of a guest.

Who uses a base file is learnt from all files below ``instances_path``. One
that cannot be read may be a disk, so it keeps base files from being removed.
List here what is none: a directory of backups, a swap file of the host. What
is in a directory of this list is not looked into. If a guest has its disk
there after all and libvirt does not name that, its base file may be removed.

``lost+found``, ``.snapshot``, ``.snapshots``, ``.zfs``, ``.glusterfs`` and
``.Trash-*`` are not looked into in any case, nor are the files of quotacheck.

For one file there is ``nova-imagecache ignore``.

Possible values:

* absolute paths, or paths below ``instances_path``; ``*`` and ``?`` as in a
  shell, where ``*`` stands for slashes as well
""",
    ),
    cfg.IntOpt(
        'removed_image_retention_seconds',
        default=3600,
        help="""
Seconds for which a removed base file stays in the trash.

A base file that is removed is moved to ``.imagecache/trash`` in the cache,
where ``nova-imagecache undelete`` brings it back, and where a fetch finds it.
If it turns out to be needed, a pass puts it back by itself. It is deleted by
the first pass after this time in which every witness could look and none saw
a user. Under disk pressure it is deleted earlier. Values below 600 count as
600. Negative values are refused.

Related options:

* ``disk_high_watermark_percent``
* ``cache_max_size``
""",
    ),
    cfg.IntOpt(
        'disk_high_watermark_percent',
        default=0,
        help="""
Percentage of the cache's file system in use above which files go early.

Above it, a pass removes unused base files before their minimum age, those
first that were not used for longest, until ``disk_low_watermark_percent``
would be reached. A file that was used within the last 600 seconds stays in
any case. As a removed file goes to the trash first, its space is free a pass
later, and 600 seconds later at least.

If all of that is not enough, the log and the exit code say so, and say what
takes the space.

Possible values:

* 0: never
* 1 to 100

Related options:

* ``disk_low_watermark_percent``
* ``cache_max_size``
* ``remove_unused_base_images``: without it, nothing goes early either
""",
    ),
    cfg.IntOpt(
        'disk_low_watermark_percent',
        default=0,
        help="""
Percentage of the file system in use at which files stop going early.

Possible values:

* 0: five less than ``disk_high_watermark_percent``
* 1 to 100, and no more than ``disk_high_watermark_percent``

Related options:

* ``disk_high_watermark_percent``
""",
    ),
    cfg.IntOpt(
        'cache_max_size',
        default=0,
        help="""
Bytes that the whole cache may take of the disk.

Above it, unused base files go early, as they do above
``disk_high_watermark_percent``, until the cache is no larger. What is in the
trash counts. Files that are in use are never removed, so this is no hard
bound; a pass says so if it cannot be kept to.

Possible values:

* 0: no bound
* any other number of bytes; negative values are refused

Related options:

* ``disk_high_watermark_percent``
""",
    ),
]

#: Options for the driver that runs in nova-compute.
DRIVER_OPTS = [
    cfg.BoolOpt(
        'refuse_damaged_base_images',
        default=True,
        help="""
Make no new disk from a base file that is known to be bad.

Read by the driver in nova-compute, and by ``cache_image`` for drivers beside
Nova. A bad base file that nobody uses goes to the trash, pinned or not, and
the image is fetched anew. One that is in use stays, and the build fails on
this host, so that the scheduler tries another. A guest that was there before
is always started, and the log says so.

Each such failure counts as a failed build of this host, and the scheduler
weighs the host down for it until a build succeeds here
(``[filter_scheduler]/build_failure_weight_multiplier``). Where hosts share the
cache the other hosts have the same bad file, so the build fails there too.

Related options:

* ``checksum_base_images``
""",
    ),
]

#: Options on what is shown to whom.
METRICS_OPTS = [
    cfg.StrOpt(
        'metrics_textfile',
        default='',
        help="""
Path of a file that metrics are written to, by each pass, and by whoever finds
damage or repairs it between two of them.

The textfile collector of Prometheus' node_exporter reads files that end in
``.prom`` in the directory that it is told
(``--collector.textfile.directory``). The user that passes run as has to be
able to write to that directory. The file is replaced as a whole, and others
may read it (0644). That it cannot be written is a problem in the report of the
pass, and no more.

It takes ``prometheus_client``, which is the extra ``[metrics]`` of this
package. Where node_exporter reads no files, ``nova-imagecache exporter``
serves the same metrics.

Possible values:

* empty: no file
* an absolute path that ends in ``.prom``
""",
    ),
    cfg.BoolOpt(
        'metrics_base_files',
        default=False,
        help="""
Have a metric for each base file that is made from an image.

``nova_imagecache_base_file_info`` then tells on which hosts an image is
cached. That is one more time series per image and host, so on a large fleet
Prometheus has to be made for it.

Related options:

* ``metrics_textfile``
""",
    ),
]

#: Options that only this package has.
OWN_OPTS = [*CHECKSUM_OPTS, *REMOVAL_OPTS, *DRIVER_OPTS, *METRICS_OPTS]

ALL_OPTS = [*NOVA_OPTS, *OWN_OPTS]
