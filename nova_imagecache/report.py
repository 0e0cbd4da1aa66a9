# SPDX-License-Identifier: Apache-2.0

"""What a pass saw and did, for programs and for the log."""

from collections.abc import Collection
import dataclasses

from oslo_log import log as logging
from oslo_utils import units

from nova_imagecache import decide
from nova_imagecache.integrity import knowledge as knowledges
from nova_imagecache.integrity import ledger as ledgers
from nova_imagecache.integrity import schedule
from nova_imagecache import names
from nova_imagecache.witnesses import exposure

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FileReport:
    """One file in the cache.

    :ivar size: in bytes
    :ivar allocated: bytes that it takes on the disk
    :ivar users: UUIDs of the instances that use it; where those are not
        known, names of directories or files
    :ivar image: the image it was made from, where it is known
    :ivar age_seconds: since its last use
    :ivar action: what was done, or would be in a dry run
    :ivar bad: the bytes of it that are bad
    :ivar exposures: how its guests fare with these, where it is a raw image
    :ivar suspect: whether a crash may have damaged it before it was first
        read
    """

    name: str
    kind: names.Kind
    size: int
    allocated: int
    users: tuple[str, ...]
    image: str | None
    age_seconds: int
    checksum: knowledges.Verdict
    action: decide.Action
    reason: str
    bad: tuple[ledgers.BadRange, ...] = ()
    exposures: tuple[exposure.Exposure, ...] = ()
    suspect: bool = False


@dataclasses.dataclass(frozen=True)
class Report:
    """One pass.

    :ivar cache_dir: path of the cache
    :ivar files: every file in it, by name
    :ivar trash: every file in the trash, by the name that it has there; its
        age is the time for which it is there
    :ivar vetoes: why nothing may be removed, a sentence each
    :ivar problems: what could not be done, a sentence each
    :ivar notes: what somebody may want to look into, a sentence each
    :ivar dry_run: whether nothing was changed
    :ivar checksums: whether base files are to be verified
    :ivar coverage: how much of the cache is verified, as far as that was
        looked at
    """

    cache_dir: str
    files: tuple[FileReport, ...] = ()
    trash: tuple[FileReport, ...] = ()
    vetoes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    dry_run: bool = False
    checksums: bool = False
    coverage: schedule.Coverage = dataclasses.field(
        default_factory=schedule.Coverage
    )

    def only(self, chosen: Collection[str]) -> 'Report':
        """Give the same report, on some of the files."""
        rows = [file for file in self.files if file.name in chosen]
        return dataclasses.replace(self, files=tuple(rows))

    @property
    def corrupt(self) -> tuple[FileReport, ...]:
        """The files that do not match their checksum."""
        return self._with(knowledges.Verdict.CORRUPT)

    @property
    def unreadable(self) -> tuple[FileReport, ...]:
        """The files that could not be read."""
        return self._with(knowledges.Verdict.UNREADABLE)

    @property
    def removed(self) -> tuple[FileReport, ...]:
        """The files that were removed, or would be in a dry run."""
        return _which(self.files, decide.Action.REMOVE)

    @property
    def restored(self) -> tuple[FileReport, ...]:
        """The files that were put back from the trash, or would be."""
        return _which(self.trash, decide.Action.PUT_BACK)

    @property
    def deleted(self) -> tuple[FileReport, ...]:
        """The files in the trash that were deleted for good, or would be."""
        return _which(self.trash, decide.Action.DELETE)

    def _with(self, verdict: knowledges.Verdict) -> tuple[FileReport, ...]:
        return tuple(file for file in self.files if file.checksum is verdict)


def _which(
    files: tuple[FileReport, ...], action: decide.Action
) -> tuple[FileReport, ...]:
    return tuple(file for file in files if file.action is action)


def _allocated(files: tuple[FileReport, ...]) -> int:
    return sum(file.allocated for file in files)


def shortfall(coverage: schedule.Coverage) -> str | None:
    """Say why a cache cannot be verified in time, if it cannot."""
    if coverage.sufficient:
        return None
    return (
        f'to read {coverage.size / units.Gi:.1f} GiB once in '
        'checksum_interval_seconds takes '
        f'{coverage.needed / units.Mi:.1f} MiB/s, and '
        'scrub_bandwidth_mib_per_second allows '
        f'{coverage.limit / units.Mi:.1f}; raise one of them'
    )


def _fare(file: FileReport) -> str:
    """Name the guests of a file, and how each fares with its damage."""
    effects: dict[str, dict[str, int]] = {}
    for each in file.exposures:
        totals = effects.setdefault(each.guest, {})
        for extent in each.extents:
            length = extent.end - extent.start
            totals[extent.effect] = totals.get(extent.effect, 0) + length
    texts = []
    for user in file.users:
        totals = effects.get(user, {})
        parts = ', '.join(f'{effect} {n} B' for effect, n in totals.items())
        texts.append(names.printable(user) + (f' ({parts})' if parts else ''))
    return ', '.join(texts) or 'none'


def log_findings(report: Report) -> None:
    """Tell the log what somebody has to look into."""
    for veto in report.vetoes:
        LOG.warning('Nothing is removed from the image cache: %s', veto)
    for text in report.problems + report.notes:
        LOG.warning('Image cache: %s', text)
    late = shortfall(report.coverage)
    if report.checksums and late is not None:
        LOG.warning('Image cache: %s', late)
    log_damage(report)


def log_damage(report: Report) -> None:
    """Tell the log which files are bad, and whom that hits."""
    for file in report.corrupt + report.unreadable:
        LOG.error(
            'Base file %(path)s (image %(image)s) is %(verdict)s: '
            '%(reason)s. Guests that read it: %(guests)s.',
            {
                'path': f'{report.cache_dir}/{file.name}',
                'image': file.image or 'unknown',
                'verdict': file.checksum,
                'reason': file.reason,
                'guests': _fare(file),
            },
        )


def log_report(report: Report) -> None:
    """Tell the log all that operators want to know of a pass."""
    log_findings(report)
    would = 'Would have ' if report.dry_run else ''
    for done, files in (
        ('removed', report.removed),
        ('put back', report.restored),
        ('deleted', report.deleted),
    ):
        for file in files:
            LOG.info(
                '%(done)s %(kind)s file %(name)s: %(reason)s',
                {
                    'done': f'{would}{done}'.capitalize(),
                    'kind': file.kind,
                    'name': file.name,
                    'reason': file.reason,
                },
            )
    for file in report.files + report.trash:
        LOG.debug(
            '%(name)s (%(kind)s, image %(image)s): %(action)s, %(reason)s; '
            'checksum %(checksum)s; users: %(users)s',
            {
                'name': names.printable(file.name),
                'kind': file.kind,
                'image': file.image,
                'action': file.action,
                'reason': file.reason,
                'checksum': file.checksum,
                'users': ', '.join(map(names.printable, file.users)),
            },
        )
    removed = () if report.dry_run else report.removed
    deleted = () if report.dry_run else report.deleted
    LOG.info(
        'Image cache %(path)s: %(files)d files, %(used)d in use, '
        '%(removed)d removed (%(moved).0f MiB), %(corrupt)d corrupt; '
        '%(trash)d in the trash, %(deleted)d deleted (%(freed).0f MiB)',
        {
            'path': report.cache_dir,
            'files': len(report.files),
            'used': sum(1 for file in report.files if file.users),
            'removed': len(removed),
            'moved': _allocated(removed) / units.Mi,
            'trash': sum(
                file.action is decide.Action.KEEP for file in report.trash
            ),
            'deleted': len(deleted),
            'freed': _allocated(deleted) / units.Mi,
            'corrupt': len(report.corrupt),
        },
    )
    if report.checksums:
        LOG.info(
            'Image cache %(path)s: %(verified).1f of %(size).1f GiB verified, '
            '%(digested).1f GiB digested; %(queue)d files (%(queued).1f GiB) '
            'to be read now',
            {
                'path': report.cache_dir,
                'verified': report.coverage.verified / units.Gi,
                'size': report.coverage.size / units.Gi,
                'digested': report.coverage.digested / units.Gi,
                'queue': report.coverage.queue,
                'queued': report.coverage.queue_size / units.Gi,
            },
        )
