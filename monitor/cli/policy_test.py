"""`sae-monitor policy test`: runs the tests beside policies.

Knows how policies, tests and a model are joined. Does not know what makes a case pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rich.table import Table

from monitor.policy.document import PolicyProblems, Problem
from monitor.policy.loader import Source, read_folder
from monitor.policy.policy import Policy
from monitor.policy.resolve import Running, resolve
from monitor.policy.testing import Result, TextReader, read_tests, run_case
from monitor.records import Readings, WatchPlan

if TYPE_CHECKING:
    from monitor.cli.policy_reader import PairReader


def run_tests(folder: Path, reader: PairReader | None) -> tuple[list[Result], int]:
    """Results of every case, and how many cases were left out because nobody reads texts."""
    results: list[Result] = []
    skipped = 0
    for source in read_folder(folder):
        try:
            tests = read_tests(source)
            policy = _policy(source, reader)
        except PolicyProblems as error:
            results.append(Result(source.model.metadata.name, "(set-up)", False, _first(error)))
            continue
        for case in tests.cases:
            result = run_case(policy, case, _text_reader(reader))
            if result is None:
                skipped += 1
            else:
                results.append(result)
    return results, skipped


def result_table(results: Sequence[Result]) -> Table:
    """One row per case."""
    table = Table("policy", "case", "result", "found")
    for result in results:
        table.add_row(result.policy, result.case, "pass" if result.passed else "FAIL", result.detail)
    return table


def write_junit(path: Path, results: Sequence[Result]) -> None:
    """The results as JUnit XML, a test suite per policy, for continuous integration."""
    suites = ElementTree.Element("testsuites", {"name": "policies"} | _counts(results))
    for policy in dict.fromkeys(result.policy for result in results):
        mine = [result for result in results if result.policy == policy]
        suite = ElementTree.SubElement(suites, "testsuite", {"name": policy} | _counts(mine))
        for result in mine:
            case = ElementTree.SubElement(suite, "testcase", classname=policy, name=result.case)
            if not result.passed:
                ElementTree.SubElement(case, "failure", message=result.detail)
            elif result.detail:
                ElementTree.SubElement(case, "system-out").text = result.detail
    ElementTree.indent(suites)
    ElementTree.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)


def _counts(results: Sequence[Result]) -> dict[str, str]:
    return {"tests": str(len(results)), "failures": str(sum(not result.passed for result in results))}


def _policy(source: Source, reader: PairReader | None) -> Policy:
    """The resolved policy: for what runs, or for what its lock was fitted to."""
    problems: list[Problem] = []
    policy = resolve(source, running_of(reader) if reader is not None else _fitted(source), problems)
    if policy is None:
        raise PolicyProblems(problems)
    return policy


def running_of(reader: PairReader) -> Running:
    """The reader's model and dictionary, as policies are resolved for them."""
    pair = reader.pair
    return Running(
        pair.loaded.digest,
        pair.dictionary.digest,
        pair.dictionary.autoencoder.features,
        reader.maxima.tolist(),
    )


def _fitted(source: Source) -> Running:
    if source.lock is None:
        return Running("", source.model.dictionary or "", 2**31)
    return Running(source.lock.model.digest, source.lock.dictionary.digest, source.lock.dictionary.features)


def _text_reader(reader: PairReader | None) -> TextReader | None:
    if reader is None:
        return None

    def read(text: str, plan: WatchPlan) -> Readings:
        return reader.watched(reader.ids(text), plan)

    return read


def _first(error: PolicyProblems) -> str:
    problem = error.problems[0]
    return f"{problem.message}; {problem.hint}" if problem.hint else problem.message
