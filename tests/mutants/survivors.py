# SPDX-License-Identifier: Apache-2.0

"""The list of mutants that may live, and why."""

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import json
import os
import tomllib
from typing import NamedTuple

PATH = os.path.join(os.path.dirname(__file__), 'survivors.toml')

#: Why one may live: nothing differs that anybody can see; only what is said
#: does; a number or an order that may as well be another.
KINDS = ('equivalent', 'words', 'tuning')


class Reason(NamedTuple):
    """Why mutants may live.

    :ivar kind: one of :data:`KINDS`
    """

    kind: str
    why: str


def read() -> dict[str, dict[str, Reason]]:
    """Read the reason for each mutant, by its module.

    :raises ValueError: there is none, or the mutant is there twice
    """
    with open(PATH, 'rb') as file:
        groups = tomllib.load(file)
    found: dict[str, dict[str, Reason]] = {}
    for module, each in ((m, g) for m, gs in groups.items() for g in gs):
        reason = Reason(each['kind'], each['why'])
        if reason.kind not in KINDS or not reason.why:
            raise ValueError(f'{module}: {reason} is no reason')
        for name in each['mutants']:
            if name in found.setdefault(module, {}):
                raise ValueError(f'{module} has {name} twice')
            found[module][name] = reason
    return found


def write(
    module: str, names: Sequence[str], known: Mapping[str, Reason]
) -> str:
    """Give the part of the list for a module, with an empty reason for new."""
    reasons = [known.get(name, Reason('', '')) for name in names]
    order = {reason: at for at, reason in enumerate(dict.fromkeys(reasons))}
    pairs = sorted(
        zip(reasons, names, strict=True), key=lambda pair: order[pair[0]]
    )
    lines = []
    for reason, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        lines += [
            f'[[{json.dumps(module)}]]',
            f'kind = {json.dumps(reason.kind)}',
            f'why = {json.dumps(reason.why)}',
            'mutants = [',
            *(f'    {json.dumps(name)},' for _reason, name in group),
            ']',
            '',
        ]
    return '\n'.join(lines)
