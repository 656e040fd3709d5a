"""Claims about a server, and whether they held."""

import io

from rich.console import Console

from monitor.cli.demo.expectations import Expectations
from monitor.cli.errors import ExitCode


def test_no_expectation_at_all_is_a_failure():
    assert Expectations().code == ExitCode.MATCHED


def printed(expectations):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(expectations.form())
    return console.export_text()


def test_claims_are_kept_in_order_and_those_that_failed_say_what_was_found():
    found = Expectations()
    assert found.check("one holds", True, "not shown")
    assert found.code == ExitCode.CLEAN
    assert not found.check("two does not", False, 17)
    assert not found.check("three does not", False)
    assert [expectation.claim for expectation in found.failed] == ["two does not", "three does not"]
    assert found.code == ExitCode.MATCHED
    lines = printed(found).splitlines()
    assert [line.strip() for line in lines[:4]] == [
        "✓ one holds",
        "✗ two does not",
        "found: 17",
        "✗ three does not",
    ]
    assert lines[-1].split() == ["1", "of", "3", "expectations", "held"]
    assert "not shown" not in printed(found)
