# SPDX-License-Identifier: Apache-2.0

"""What the tests of conclusions share."""

from typing import Any

from nova_imagecache.content import ledgers
from nova_imagecache.scrub import comparisons
from nova_imagecache.scrub import conclusions
from tests.support import base
from tests.support import letters
from tests.support import scrubbing

Aim = comparisons.Aim


def bad(*blocks: int) -> tuple[ledgers.BadBlocks, ...]:
    return ledgers.gather(dict.fromkeys(blocks, scrubbing.CORRUPT))


class ConclusionTestCase(base.TestCase):
    def conclude(
        self,
        ledger: ledgers.Ledger,
        known: str,
        found: str,
        aim: Aim = Aim.CHECK,
        whole: bool = True,
        algorithm: str | None = letters.ALGORITHM,
        **reading: Any,
    ) -> conclusions.Conclusion:
        """Read a file from start to end, and conclude."""
        values: dict[str, Any] = {
            'comparison': letters.compared(
                ledger, known, found, aim, whole, algorithm
            ),
            'started': letters.NOW,
            'moved': False,
            'size': len(found) * letters.BLOCK,
            'stored': ledger.stored,
            'corrupt': ledger.corrupt,
        }
        return conclusions.conclude(
            ledger, conclusions.Reading(**(values | reading))
        )

    def learn(
        self, found: str, known: str | None = None, **reading: Any
    ) -> ledgers.Ledger:
        """Read a file for the first time."""
        fields = {
            key: reading.pop(key) for key in ('sha1', 'bad') if key in reading
        }
        known = known or '?' * len(found)
        ledger = letters.ledger_of(known, started=letters.NOW, **fields)
        return self.conclude(ledger, known, found, Aim.LEARN, **reading).ledger

    def assert_blocks(
        self, text: str, concluded: conclusions.Conclusion
    ) -> None:
        self.assertEqual(
            letters.blocks_of(text).encode(), concluded.blocks.encode()
        )
