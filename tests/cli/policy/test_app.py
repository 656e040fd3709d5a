import json
import re
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.cli.policy.run_tests import write_junit
from monitor.policy.files.cases import Result
from monitor.policy.schema.policy import json_schema
from tests.policy.policy_files import PINNED, write_concept, write_policy

TESTS = """\
apiVersion: monitor/v1
policy: greed
cases:
  - {name: strong, readings: {all: [0, 1]}, fires: [stated]}
  - {name: text, texts: [hello], fires: []}
"""


def run(*arguments):
    return CliRunner().invoke(app, ["policy", *map(str, arguments)])


def test_check_says_what_is_wrong_and_exits_with_2(tmp_path):
    write_policy(tmp_path, PINNED)
    done = run("check", tmp_path)
    assert done.exit_code == 0, done.output
    assert "1 policy, 1 rule, " in done.output
    assert "has no test file" in done.output
    write_policy(tmp_path, PINNED.replace("threshold: 0.8", "threshold: high"))
    done = run("check", tmp_path)
    assert done.exit_code == 2
    assert "greed.yaml:13:16" in done.output


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


def test_schema_is_json(tmp_path):
    assert json.loads(run("schema").output) == json_schema()
    assert run("schema", "-o", tmp_path / "s.json").exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text()) == json_schema()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--only", "envy"], "no policy called envy"),
        ([], "0 benign texts cannot set a threshold"),
        (["--extra", "nowhere"], "no folder at nowhere"),
        (["--extra", "{}"], "are about envy, and no policy here is"),
    ],
)
def test_fit_refuses_what_it_cannot_use(tmp_path, arguments, word):
    write_concept(tmp_path)
    (tmp_path / "envy").mkdir()
    (tmp_path / "envy" / "rows.csv").write_text("text,label\nmine,1\nyours,0\n")
    done = run("fit", tmp_path, *(argument.format(tmp_path) for argument in arguments))
    assert done.exit_code == 2
    assert word in " ".join(done.output.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("schema", "-o"),
        ("test", "--readings-only", "--junit"),
        ("evaluate", "--data", ".", "-o"),
        ("report", "-o"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(arguments, tmp_path):
    write_concept(tmp_path)
    folder = [] if arguments[0] == "schema" else [tmp_path]
    for path, word in ((tmp_path / "none" / "x", "no folder at"), (tmp_path, "is a folder")):
        done = run(arguments[0], *folder, *arguments[1:], path)
        assert done.exit_code == 2
        assert word in done.output
        assert "Traceback" not in done.output


def test_a_fit_refuses_what_the_pair_does_not_have(tmp_path):
    (tmp_path / "benign.jsonl").write_text("".join(f'{{"text": "word {i}"}}\n' for i in range(250)))
    head, rate = PINNED.split("features:\n")[0], "threshold: {false_positive_rate: 0.01}"
    write_policy(tmp_path, f"{head}rules:\n  - {{name: r, features: [{{index: 2000000}}], {rate}}}\n")
    other = f"{head}probe: {{weights: [1, 2]}}\nrules:\n  - {{name: r, {rate}}}\n"
    write_policy(tmp_path, other.replace("name: greed", "name: envy"), "envy")
    done = run("fit", tmp_path)
    assert done.exit_code == 2
    assert re.search(r"greed\.yaml:\d+:\d+: feature 2000000 does not exist", done.output)
    assert re.search(r"envy\.yaml:\d+:\d+: the probe has 2 weights", done.output)


def test_a_fit_leaves_policies_of_other_models_alone(tmp_path):
    (tmp_path / "benign.jsonl").write_text("".join(f'{{"text": "word {i}"}}\n' for i in range(250)))
    bound = 'match: {models: ["some-other-*"]}\nconcept:'
    write_concept(tmp_path)
    file = tmp_path / "greed.yaml"
    file.write_text(file.read_text().replace("concept:", bound, 1))
    lock = tmp_path / "greed.lock.yaml"
    lock.write_text("of the other model\n")
    done = run("fit", tmp_path)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "greed: bound to some-other-*; not fitted to this model" in said
    assert "0 locks written" in said
    assert lock.read_text() == "of the other model\n"


def test_check_notes_rules_that_changed_since_they_were_fitted(tmp_path):
    path, _ = write_concept(tmp_path)
    assert "fitted" not in run("check", tmp_path).output
    path.write_text(path.read_text().replace("pooling: max", "pooling: ema"))
    done = run("check", tmp_path)
    assert done.exit_code == 0, done.output
    assert "greed: `stated` changed its pooling" in " ".join(done.output.split())
