# SPDX-License-Identifier: Apache-2.0

"""Small changes of the pure modules, which the tests are to notice.

    python -m tests.mutants [--jobs 2] [--list] [MODULE ...]

What no test notices is in survivors.toml, with the reason, or it is a failure;
so is an entry there that is noticed, or that there is not any more.
"""

import argparse
import os
import sys
import time

import tqdm

from tests.mutants import runs
from tests.mutants import survivors

#: Modules, and the tests of each that are to notice. A test that takes long
#: is not among them: it runs once for each mutant.
TESTS = {
    'cache.machines': ('unit.test_machines',),
    'cache.sightings': ('unit.test_sightings',),
    'clocks': ('unit.test_clocks',),
    'content.blockmap': ('unit.test_blockmap',),
    'content.knowledge': ('unit.test_knowledge', 'node.test_knowledge'),
    'content.ledgers': ('unit.test_ledgers', 'node.test_ledgers'),
    'content.soundness': (
        'unit.test_soundness',
        'node.test_soundness.AnswerTest',
    ),
    'heal.combining': ('unit.test_combining',),
    'heal.guests': ('unit.test_repair_guests',),
    'heal.policies': ('unit.test_repair_policies',),
    'measures': ('unit.test_measures',),
    'names': ('unit.test_names',),
    'outlets.messages': ('unit.test_messages', 'unit.test_columns'),
    'outlets.since': ('unit.test_metrics',),
    'passes.decide': ('unit.test_decide',),
    'passes.observed': ('unit.test_decide',),
    'passes.pressure': ('unit.test_pressure', 'unit.test_decide'),
    'scrub.comparisons': ('unit.test_comparisons',),
    'scrub.conclusions': (
        'unit.test_conclusions',
        'unit.test_conclusions_other',
    ),
    'scrub.jobs': ('unit.test_jobs',),
    'scrub.schedule': ('unit.test_schedule', 'unit.test_decide'),
    'witnesses.chains': ('unit.test_chains',),
    'witnesses.needs': ('unit.test_needs',),
    'witnesses.vetoing': ('unit.test_vetoing',),
}


def run(name: str, jobs: int) -> tuple[int, list[str]]:
    """Count the mutants of a module, and name those that survive."""
    module = runs.Module(name, [f'tests.{each}' for each in TESTS[name]])
    module.prepare()
    with tqdm.tqdm(
        total=len(module.mutants),
        desc=name,
        unit='mutant',
        leave=False,
        disable=None,
    ) as bar:
        found = module.survivors(jobs, bar.update)
    return len(module.mutants), found


def main() -> int:
    """Run what is asked for; 1 if the list is not right."""
    parser = argparse.ArgumentParser(
        prog='python -m tests.mutants', description=__doc__.partition('\n')[0]
    )
    parser.add_argument(
        '--jobs', type=int, default=len(os.sched_getaffinity(0))
    )
    parser.add_argument(
        '--list',
        action='store_true',
        help='print what survives in the form of the list',
    )
    parser.add_argument('module', nargs='*', help=', '.join(TESTS))
    options = parser.parse_args()
    if unknown := set(options.module) - set(TESTS):
        parser.error(f'no such modules: {", ".join(sorted(unknown))}')
    if options.jobs < 1:
        parser.error('--jobs is 1 at least')
    # Its thread would be in the way of a fork.
    tqdm.tqdm.monitor_interval = 0
    try:
        known = survivors.read()
    except (KeyError, TypeError, ValueError) as error:
        parser.error(f'{survivors.PATH}: {error}')
    strangers = sorted(set(known) - set(TESTS))
    for name in strangers:
        print(f'{name} IS IN THE LIST, AND NOT IN TESTS')
    right = not strangers
    for name in options.module or TESTS:
        began = time.monotonic()
        try:
            count, found = run(name, options.jobs)
        except RuntimeError as error:
            print(error)
            return 1
        listed = known.get(name, {})
        if options.list:
            print(survivors.write(name, found, listed))
            continue
        print(
            f'{name}: {count} mutants, {len(found)} survive, '
            f'{time.monotonic() - began:.0f} s',
            flush=True,
        )
        new = [each for each in found if each not in listed]
        stale = [each for each in listed if each not in found]
        for each in new:
            print(f'  SURVIVES, AND IS NOT IN THE LIST: {each}')
        for each in stale:
            print(f'  IS IN THE LIST, AND DOES NOT SURVIVE: {each}')
        right = right and not (new or stale)
    return 0 if right or options.list else 1


if __name__ == '__main__':
    sys.exit(main())
