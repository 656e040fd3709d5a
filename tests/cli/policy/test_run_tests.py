"""`policy test`: results as a table, a line and JUnit XML."""

import io
import shutil
from xml.etree import ElementTree

import pytest
from rich.console import Console
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.cli.policy.run_tests import result_table, summary, write_junit
from monitor.lab.policy_tests import LEFT_OUT
from monitor.policy.files.cases import Result
from tests.cli.policy.tools import output_of, run
from tests.policy.policy_files import write_concept


def test_tests_of_policies_for_other_models_are_skipped_and_said_to_be(mixed, tmp_path):
    folder = tmp_path / "tests"
    folder.mkdir()
    for name in ("elsewhere", "loud"):
        shutil.copy(mixed / f"{name}.yaml", folder)
    case = (
        "apiVersion: monitor/v1\npolicy: {}\ncases:\n  - {{name: fires, texts: [hello there], fires: [{}]}}\n"
    )
    (folder / "loud.test.yaml").write_text(case.format("loud", "any-token"))
    (folder / "elsewhere.test.yaml").write_text(case.format("elsewhere", "seen"))
    output = " ".join(output_of("test", folder, "--junit", tmp_path / "out.xml").replace("│", " ").split())
    assert "1 passed, 0 failed, 1 policy for other models not tested" in output
    assert "bound to *another*; not tested on this model" in output
    suites = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert [(s.get("name"), s.get("tests"), s.get("skipped")) for s in suites] == [
        ("elsewhere", "1", "1"),
        ("loud", "1", "0"),
    ]
    (folder / "elsewhere.test.yaml").unlink()
    done = CliRunner().invoke(app, ["policy", "test", str(folder)])
    assert done.exit_code == 1, "without a test it fails, whatever it is bound to"


TESTS = """\
apiVersion: monitor/v1
policy: greed
cases:
  - {name: strong, readings: {all: [0, 1]}, fires: [stated]}
  - {name: text, texts: [hello], fires: []}
"""


def test_test_needs_no_model_for_readings(tmp_path):
    write_concept(tmp_path)
    done = run("test", tmp_path, "--readings-only")
    assert done.exit_code == 1
    assert "has no test" in " ".join(done.output.split())
    (tmp_path / "greed.test.yaml").write_text(TESTS)
    done = run("test", tmp_path, "--readings-only", "--junit", tmp_path / "out.xml")
    assert done.exit_code == 0, done.output
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "0", "1")
    assert suite.find(".//testcase[@name='text']/skipped").get("message") == "reads texts; left out"
    assert "1 passed, 0 failed, 1 on texts left out" in done.output


def test_junit_names_every_case_and_why_it_failed(tmp_path):
    results = [
        Result("a", "one", True, "fired on 2 of 2"),
        Result("a", "two", False, "fired: <x>"),
        Result("b", "one", True, ""),
    ]
    write_junit(tmp_path / "out.xml", results)
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert [(s.get("name"), s.get("tests"), s.get("failures")) for s in root] == [
        ("a", "2", "1"),
        ("b", "1", "0"),
    ]
    failed = root.find("./testsuite/testcase[@name='two']/failure")
    assert failed.get("message") == "fired: <x>"
    assert root.get("tests") == "3"


def case(passed, detail="", *, skipped=False, policy="a"):
    return Result(policy, "one", passed, detail, skipped=skipped)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([], "0 passed, 0 failed"),
        ([case(True), case(False)], "1 passed, 1 failed"),
        ([case(False, LEFT_OUT, skipped=True)], "0 passed, 0 failed, 1 on texts left out"),
        (
            [case(False, "bound", skipped=True), case(False, "bound", skipped=True)],
            "0 passed, 0 failed, 1 policy for other models not tested",
        ),
        (
            [case(True), *(case(False, "bound", skipped=True, policy=name) for name in "bc")],
            "1 passed, 0 failed, 2 policies for other models not tested",
        ),
    ],
)
def test_the_last_line_counts(results, said):
    assert summary(results) == said


def test_what_xml_cannot_hold_is_written_as_its_escape(tmp_path):
    write_junit(tmp_path / "out.xml", [Result("a", "x\x1b[31m", False, "fired \ud800")])
    (found,) = ElementTree.parse(tmp_path / "out.xml").getroot().iter("testcase")
    assert found.get("name") == "x\\x1b[31m"
    assert found[0].get("message") == "fired \\ud800"


def test_a_row_for_every_case():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(
        result_table([case(True, "fired"), case(False, "quiet\x1b"), case(False, "out", skipped=True)])
    )
    text = console.export_text()
    assert [word for word in ("pass", "FAIL", "skip") if word in text] == ["pass", "FAIL", "skip"]
    assert "quiet\\x1b" in text


TEXTS_ONLY = TESTS.replace("  - {name: strong, readings: {all: [0, 1]}, fires: [stated]}\n", "")


def test_a_run_in_which_nothing_ran_is_no_success(tmp_path):
    write_concept(tmp_path)
    (tmp_path / "greed.test.yaml").write_text(TEXTS_ONLY)
    done = run("test", tmp_path, "--readings-only")
    assert done.exit_code == 2
    assert "0 passed, 0 failed, 1 on texts left out" in done.output


def test_a_test_and_a_lock_whose_policy_is_gone_fail(tmp_path):
    write_concept(tmp_path)
    (tmp_path / "greed.test.yaml").write_text(TESTS)
    (tmp_path / "gone.test.yaml").write_text(TESTS.replace("greed", "gone"))
    done = run("test", tmp_path, "--readings-only", "--junit", tmp_path / "out.xml")
    assert done.exit_code == 1
    assert "1 passed, 1 failed" in done.output
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()
    failure = suite.find(".//testsuite[@name='gone']/testcase/failure")
    assert "belongs to a policy gone.yaml that is not here" in failure.get("message")
