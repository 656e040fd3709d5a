"""`sae-monitor policy check`, `schema`, `test` and `explain`: what is asked of a folder of policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.errors import ExitCode
from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, ModelOption
from monitor.cli.output import writable, write, write_text
from monitor.cli.show.console import stdout_console
from monitor.records import Phase

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader

FolderArgument = Annotated[Path, typer.Argument(help="Folder of policies.")]


def check(policies: FolderArgument) -> None:
    """Read every policy with its examples, lock and test; print every problem with its position."""
    from monitor.cli.show.words import counted
    from monitor.policy.files.lint import check_folder

    checked = check_folder(policies)
    console = stdout_console()
    for line in checked.notes:
        console.print(line, soft_wrap=True)
    policies_, rules = counted(checked.policies, "policy", "policies"), counted(checked.rules, "rule")
    console.print(f"{policies_}, {rules}, {counted(checked.examples, 'example')}: no problem found")


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; standard output if not given.")
    ] = None,
) -> None:
    """Print the JSON Schema of a policy file, for editors."""
    from monitor.policy.schema.policy import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
    else:
        writable(output)
        write_text(output, text)


def run(
    policies: FolderArgument,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    readings_only: Annotated[
        bool, typer.Option("--readings-only", help="Leave out cases that need a model.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Also write the results as JUnit XML.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Run NAME.test.yaml of every policy. A policy without a test fails. Exit code 1 where a case fails."""
    from monitor.cli.policy.run_tests import result_table, run_tests, said, write_junit

    writable(junit)
    reader = None if readings_only else _reader(model, dictionary, device, dictionary_format)
    results = run_tests(policies, reader)
    console = stdout_console()
    console.print(result_table(results))
    if junit is not None:
        write(junit, lambda path: write_junit(path, results))
    console.print(said(results))
    if any(not result.passed and not result.skipped for result in results):
        raise typer.Exit(ExitCode.MATCHED)


def explain(
    policies: FolderArgument,
    text: Annotated[str, typer.Argument(help="The text to explain.")],
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    phase: Annotated[Phase, typer.Option(help="Who wrote the text: prompt or response.")] = Phase.PROMPT,
    device: DeviceOption = "auto",
) -> None:
    """Show for every rule how far it is from its threshold, and which tokens and features it rests on."""
    from monitor.cli.policy.explain import explain_text

    explain_text(
        stdout_console(), _reader(model, dictionary, device, dictionary_format), policies, text, phase
    )


def _reader(
    model: str | None, dictionary: Path | None, device: str, dictionary_format: str | None
) -> PairReader:
    from monitor.lab.pair import open_pair
    from monitor.lab.readings import PairReader

    return PairReader(open_pair(model, dictionary, device, dictionary_format))
