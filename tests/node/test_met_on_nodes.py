# SPDX-License-Identifier: Apache-2.0

"""Each thing that is met on real nodes: what happens, and what is said."""

import os

import ddt

from nova_imagecache.passes import reports
from tests.support import base
from tests.support import met_on_nodes
from tests.support import nodes
from tests.support import seeing

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
PAGE = os.path.join(ROOT, 'doc/source/admin/operations.rst')

Fate = met_on_nodes.Fate


class _Place:
    """The node of a test."""

    def __init__(self, test: seeing.SeeingTestCase) -> None:
        self._test = test
        self.free = test.node.base_path(test.free)
        self.used = test.node.base_path(test.used)

    def at(self, *parts: str) -> str:
        path = self._test.path(*parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def elsewhere(self, *parts: str) -> str:
        return self._test.outside(*parts)

    def root(self, path: str, mode: int = 0) -> str:
        return self._test.make_roots(path, mode)

    def disk_over(self, path: str, base_file: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        nodes.qemu_img(
            'create', '-f', 'qcow2', '-b', base_file,
            '-F', 'qcow2' if base_file.endswith('layer') else 'raw', path,
        )  # fmt: skip


@ddt.ddt
class NodeTest(seeing.SeeingTestCase):
    """The guest is in the list; the pass is that of an unprivileged user."""

    def see(self, case: met_on_nodes.Case) -> reports.Report:
        case.make(_Place(self))
        return self.run_pass(self.listed(self.instance()))

    @ddt.data(*met_on_nodes.CASES)
    def test_it_is_as_the_table_says(self, case: met_on_nodes.Case) -> None:
        report = self.see(case)
        gone = {file.name for file in report.removed}
        goes = case.fate in (Fate.GOES, Fate.SOME)
        self.assertEqual({self.free} if goes else set(), gone, case.title)
        said = [
            *report.vetoes, *report.withheld, *report.problems, *report.notes,
            *(file.reason for file in report.files),
        ]  # fmt: skip
        if case.reason is None:
            self.assertEqual((), report.obstacles)
        else:
            veto = self.veto(report)
            self.assertIs(case.reason, veto.reason)
            self.assertIs(case.fate is Fate.SOME, veto.is_narrow)
        if case.said is not None:
            self.assertIn(case.said, ' '.join(said))
        elif case.reason is None:
            self.assert_clean(report)
        if case.fate is Fate.NEEDED:
            self.assertTrue(self.file_of(report, self.free).used)
        if os.path.exists(self.disk):
            self.assertIn(self.used, self.node.files() | {self.missing(case)})

    def missing(self, case: met_on_nodes.Case) -> str | None:
        """Name the base file that a case has taken away."""
        return self.used if 'neither cache nor' in case.title else None


class TableTest(base.TestCase):
    def test_the_table_of_the_operators_page_is_what_the_cases_give(
        self,
    ) -> None:
        with open(PAGE, encoding='utf-8') as page:
            text = page.read()
        # Which python -m tests.support.met_on_nodes writes.
        self.assertIn(f'\n\n{met_on_nodes.table()}\n', text)

    def test_each_case_says_what_to_do(self) -> None:
        for case in met_on_nodes.CASES:
            self.assertTrue(case.remedy.endswith('.'), case.title)
