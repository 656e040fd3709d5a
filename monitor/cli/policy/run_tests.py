"""`sae-monitor policy test`: runs the tests beside policies.

Knows how policies, tests and a model are joined. Does not know what makes a case pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rich.table import Table
from rich.text import Text

from monitor.cli.show.printable import printable
from monitor.lab.running_policies import bound_elsewhere, running_of
from monitor.policy.files.cases import Case, Result, TextReader, read_tests, run_case
from monitor.policy.files.loader import read_folder
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, Source
from monitor.policy.files.yaml_document import PolicyProblems, Problem
from monitor.policy.policy import Policy
from monitor.records import Readings, WatchPlan

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader

SETUP = "(set-up)"
"""Stands for the case where a policy or its test file cannot be used."""
LEFT_OUT = "reads texts; left out"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def run_tests(folder: Path, reader: PairReader | None) -> list[Result]:
    """Results of every case; skipped ones are of policies for other models, or on texts that nobody reads."""
    running = running_of(reader) if reader is not None else None
    results: list[Result] = []
    for source in read_folder(folder):
        name = source.model.metadata.name
        bound = bound_elsewhere(source, running) if running is not None else ""
        try:
            tests = read_tests(source)
            policy = None if bound else _policy(source, running)
        except PolicyProblems as error:
            results.append(Result(name, SETUP, False, _all(error)))
            continue
        if policy is None:
            results += [
                Result(name, case.name, False, f"{bound}; not tested on this model", skipped=True)
                for case in tests.cases
            ]
        else:
            results += [_ran(policy, case, _text_reader(reader)) for case in tests.cases]
    return results


def _ran(policy: Policy, case: Case, read: TextReader | None) -> Result:
    try:
        result = run_case(policy, case, read)
    except PolicyProblems as error:
        return Result(policy.name, case.name, False, _all(error))
    return result or Result(policy.name, case.name, False, LEFT_OUT, skipped=True)


def said(results: Sequence[Result]) -> str:
    """How many passed, failed and did not run."""
    failed = sum(not result.passed and not result.skipped for result in results)
    texts = sum(result.skipped and result.detail == LEFT_OUT for result in results)
    bound = {result.policy for result in results if result.skipped and result.detail != LEFT_OUT}
    line = f"{sum(result.passed for result in results)} passed, {failed} failed"
    line += f", {texts} on texts left out" if texts else ""
    count = f"{len(bound)} {'policy' if len(bound) == 1 else 'policies'}"
    return line + (f", {count} for other models not tested" if bound else "")


def result_table(results: Sequence[Result]) -> Table:
    """One row per case."""
    table = Table("policy", "case", "result", "found")
    for result in results:
        word = "skip" if result.skipped else "pass" if result.passed else "FAIL"
        table.add_row(*(Text(printable(text)) for text in (result.policy, result.case, word, result.detail)))
    return table


def write_junit(path: Path, results: Sequence[Result]) -> None:
    """The results as JUnit XML, a test suite per policy, for continuous integration."""
    suites = ElementTree.Element("testsuites", {"name": "policies"} | _counts(results))
    for policy in dict.fromkeys(result.policy for result in results):
        mine = [result for result in results if result.policy == policy]
        suite = ElementTree.SubElement(suites, "testsuite", {"name": policy} | _counts(mine))
        for result in mine:
            case = ElementTree.SubElement(suite, "testcase", classname=policy, name=_clean(result.case))
            if result.skipped:
                ElementTree.SubElement(case, "skipped", message=_clean(result.detail))
            elif not result.passed:
                ElementTree.SubElement(case, "failure", message=_clean(result.detail))
            elif result.detail:
                ElementTree.SubElement(case, "system-out").text = _clean(result.detail)
    ElementTree.indent(suites)
    ElementTree.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)


def _counts(results: Sequence[Result]) -> dict[str, str]:
    failed = sum(not result.passed and not result.skipped for result in results)
    skipped = sum(result.skipped for result in results)
    return {"tests": str(len(results)), "failures": str(failed), "skipped": str(skipped)}


def _clean(text: str) -> str:
    """Text without the characters that XML cannot hold, each written as its escape."""
    return _NOT_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _policy(source: Source, running: Running | None) -> Policy:
    """The resolved policy: for what runs, or for what its lock was fitted to."""
    problems: list[Problem] = []
    policy = resolve(source, running or _fitted(source), problems)
    if policy is None:
        raise PolicyProblems(problems)
    return policy


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


def _all(error: PolicyProblems) -> str:
    """Every problem with what to write instead; where each stands is `policy check`'s to say."""
    return "\n".join(f"{one.message}; {one.hint}" if one.hint else one.message for one in error.problems)
