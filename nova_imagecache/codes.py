# SPDX-License-Identifier: Apache-2.0

"""The code of each thing that an operator may have to look into.

Pure functions.

The one table of them: log lines, ``status``, ``explain`` and the runbook take
them from here (decision 0093). A code that was in a release keeps its meaning
for good.
"""

import enum


class Severity(enum.StrEnum):
    """How bad it is: what the exit code goes by.

    DAMAGE: guests read, or may read, wrong bytes.
    PROBLEM: something stops a guest or the work on the cache.
    NOTE: somebody may want to know; nothing has to be done at once.
    """

    DAMAGE = 'damage'
    PROBLEM = 'problem'
    NOTE = 'note'


_D, _P, _N = Severity


class Code(enum.Enum):
    """A code, how bad that is, and what it says; in the order of harm."""

    severity: Severity
    title: str

    CORRUPT = 'C01', _D, 'a base file is corrupt'
    UNREADABLE = 'C02', _D, 'a base file cannot be read'
    ANEW = 'C03', _D, 'a base file was made anew under guests'
    DIFFERS = 'C04', _D, 'two files of one image differ'
    CHECKSUM = 'C05', _D, 'a stored checksum contradicts its file'
    USED_BAD = 'C06', _D, 'a bad base file is used all the same'
    REFUSED = 'C07', _D, 'a new disk was refused'
    GUEST_DAMAGED = 'C09', _D, 'a guest has what a repair does not reach'
    FETCHED_ANEW = 'C08', _N, 'a bad base file was replaced'

    MISSING_BASE = 'G01', _P, 'a guest cannot start: its base file is missing'

    MISSING_MOUNT = 'V01', _P, 'a file system is not mounted'
    RECORD = 'V02', _P, 'a record of the cache cannot be used'
    UNANSWERED = 'V03', _P, 'a witness cannot answer'
    UNREADABLE_DISK = 'V04', _P, 'a disk or directory cannot be looked at'
    MISSING_DISK = 'V05', _P, 'a disk of a guest is missing'
    OUT_OF_SIGHT = 'V06', _P, 'a disk stands on something out of sight'
    DAMAGED_HEADER = 'V07', _P, 'a disk has a damaged header'
    UNSTABLE = 'V08', _P, 'a directory changes faster than it is read'
    CLOCK = 'V09', _P, 'a clock is wrong'
    OTHER_HOST = 'V10', _P, 'another host could not look at everything'

    UNWRITABLE = 'P01', _P, 'the cache cannot be written to'
    UNUSABLE = 'P02', _P, 'a pass does nothing'
    NO_PASS = 'P03', _P, 'no pass is made'
    UNLISTED = 'P04', _P, 'a file of the cache cannot be looked at'
    STALLED = 'P05', _P, 'the scrub makes no progress'
    NO_SCRUB = 'P06', _P, 'the scrub does not run'
    OVERDUE = 'P07', _P, 'verification is overdue'
    NOT_VERIFIED = 'P08', _P, 'a base file cannot be verified'
    UNKNOWN = 'P09', _P, 'what is known of a base file cannot be used'
    SPACE = 'P10', _P, 'not enough space can be freed'
    UNMEASURED = 'P11', _P, 'how full the disk is cannot be told'
    NOT_MOVED = 'P12', _P, 'a file could not be moved or deleted'
    NOT_KEPT = 'P13', _P, 'what was learnt cannot be kept'
    TWINS = 'P14', _P, 'two machines have the name of this host'
    SKEW = 'P15', _P, 'the clock differs from that of the storage'
    RECALL = 'P16', _P, 'what this host noted cannot be used'
    RELIANCE = 'P17', _P, 'this Nova is not the one that was expected'
    NO_CACHE = 'P18', _P, 'there is no cache'
    NOT_REPAIRED = 'P19', _P, 'a bad base file is not repaired'
    REPAIRS_PAUSE = 'P20', _P, 'repairs pause'
    HANGS = 'P21', _P, 'a process hangs in the kernel'

    RATE = 'N01', _N, 'the limit is too low to verify in time'
    JUMP = 'N02', _N, 'the clock was set'
    LOCAL_LOCKS = 'N03', _N, 'hosts do not see the locks of each other'
    QEMU_LOCKS = 'N04', _N, 'the locks of QEMU tell nothing'
    HELD = 'N05', _N, 'a file in the trash is still open'
    SIBLING = 'N06', _N, 'there is a cache of another host'
    IGNORED = 'N07', _N, 'files are ignored on somebody\'s word'
    UNCHANGED = 'N08', _N, 'unreadable files keep what they needed'
    AWAY = 'N09', _N, 'a host is away, or notes nothing'
    SET_ASIDE = 'N10', _N, 'a damaged record was set aside'
    READ_TWICE = 'N11', _N, 'a block was read twice and came out differently'
    TOUCHED = 'N12', _N, 'a base file is written to'
    UNTOLD = 'N13', _N, 'whether a base file is sound cannot be told'
    NOT_RECOVERED = 'N14', _N, 'a base file is fetched though it may be here'
    NO_LOCK = 'N15', _N, 'a lock cannot be taken or released'
    USE_NOT_NOTED = 'N16', _N, 'the use of a base file cannot be noted'
    FLATTENED = 'N17', _N, 'a disk is copied whole'
    DISK_NOTE = 'N18', _N, 'a disk is not what it should be'
    NOTHING_DUE = 'N19', _N, 'nothing is read'
    NOT_CACHED = 'N21', _N, 'what is pinned is not in the cache'
    OPTION = 'N20', _N, 'an option is misspelt'
    REPAIRED = 'N22', _N, 'a base file was repaired'
    LAST_COPY = 'N23', _N, 'a base file is the last copy of its image'
    WAITING = 'N24', _N, 'another one reads base files'

    def __new__(cls, value: str, severity: Severity, title: str) -> 'Code':
        """Take the code for the value."""
        self = object.__new__(cls)
        self._value_ = value
        self.severity = severity
        self.title = title
        return self

    def __str__(self) -> str:
        """Give it as operators see it."""
        return str(self.value)

    @property
    def rank(self) -> int:
        """The place of it in the order of harm, from 0."""
        return _RANKS[self]

    @property
    def anchor(self) -> str:
        """The anchor in the runbook."""
        return f'code-{self}'.lower()


_RANKS = {code: rank for rank, code in enumerate(Code)}

#: The alerts that ship with the package, by their names.
ALERTS = tuple(
    f'NovaImageCache{name}'
    for name in (
        'BaseFileDamaged',
        'ScrubStalled',
        'VerificationOverdue',
        'PassMissing',
        'RemovalVetoed',
        'SpaceShortfall',
        'RepairPaused',
        'MetricsStale',
        'ImageDamagedOnManyHosts',
    )
)

#: Bytes of a log line, without what the logger puts before it.
LINE_BYTES = 300


class Problem(str):
    """A sentence for an operator, and its code.

    :ivar subject: what it is about: the name of a file, a path or a host
    :ivar guests: UUIDs of the guests that it hits
    """

    code: Code
    subject: str
    guests: tuple[str, ...]

    def __new__(
        cls,
        code: Code,
        text: str,
        subject: str = '',
        guests: tuple[str, ...] = (),
    ) -> 'Problem':
        """Give a sentence its code."""
        self = super().__new__(cls, text)
        self.code = code
        self.subject = subject
        self.guests = guests
        return self


def clipped(text: str, size: int = LINE_BYTES, end: str = '') -> str:
    """Cut a text to so many bytes of UTF-8, on one line.

    :param end: what has to be there in any case, after the text
    """
    text = ' '.join(text.split())
    room = size - len(end.encode(errors='replace'))
    data = text.encode(errors='replace')
    if len(data) <= room:
        return text + end
    kept = data[: room - 3].decode(errors='ignore').rstrip(' ,;:')
    return f'{kept}...{end}'
