"""`sae-monitor policy test`: the flags, and the results as a table and as JUnit XML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import typer
from rich.table import Table
from rich.text import Text

from monitor.cli.errors import ExitCode
from monitor.cli.opened_pair import opened_pair, what_runs
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.output import writable, write
from monitor.cli.show.console import stdout_console
from monitor.cli.show.printable import printable
from monitor.errors import InputError
from monitor.lab.policy_tests import LEFT_OUT, run_tests
from monitor.policy.files.cases import Result

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def run(
    policies: Annotated[Path, typer.Argument(help="Folder of policies with NAME.test.yaml beside each.")],
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    readings_only: Annotated[
        bool, typer.Option("--readings-only", help="Leave out cases on texts, and load no model.")
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results to this file too, as JUnit XML.")
    ] = None,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Run NAME.test.yaml of every policy.

    A policy without a test fails, and so does a test or a lock without its policy. Exit codes: 0 every case that ran
    has passed, 1 one has failed, 2 an error, or no case ran.
    """
    writable(junit)
    reader = None
    if not readings_only:
        from monitor.lab.readings import PairReader

        reader = PairReader(
            opened_pair(
                model,
                dictionary,
                dictionary_format,
                device,
                pair_name=pair_name,
                skip_self_test=skip_self_test,
            )
        )
    chosen = what_runs(model, dictionary, dictionary_format, pair_name, device)
    results = run_tests(policies, reader, chosen.pair or "")
    console = stdout_console()
    console.print(result_table(results))
    if junit is not None:
        write(junit, lambda path: write_junit(path, results))
    console.print(summary(results))
    if any(not result.passed and not result.skipped for result in results):
        raise typer.Exit(ExitCode.MATCHED)
    if all(result.skipped for result in results):
        raise InputError(f"no case of {policies} ran, so nothing was tested: {_needed(results)}")


def _needed(results: Sequence[Result]) -> str:
    """What to do where no case ran."""
    if any(result.detail == LEFT_OUT for result in results):
        return "leave out --readings-only, or write cases on `readings`"
    return "give the model that the policies are for with --model"


def summary(results: Sequence[Result]) -> str:
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
