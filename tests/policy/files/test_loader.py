import shutil

import pytest

from monitor.errors import PolicyError
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockModel, write_lock
from monitor.records import Action, Clamp, Mode, Severity, Where
from tests.policy.files.loaded import load, problems
from tests.policy.policy_files import PINNED, lock_for, write_concept, write_policy


def test_a_pinned_policy_needs_no_lock(tmp_path):
    write_policy(tmp_path, PINNED)
    policies = load(tmp_path)
    (policy,) = policies.policies
    assert policies.watch.features == (3, 7, 9)
    assert policies.clampable == (9,)
    assert (policy.severity, policy.closed, policy.clamps) == (
        Severity.HIGH,
        True,
        (Clamp(9, -1.5, Where.ACTIVE),),
    )
    (rule,) = policy.rules
    assert (rule.action, rule.mode, rule.threshold) == (Action.SUPPRESS, Mode.ENFORCE, 0.8)
    assert [(f.index, f.weight) for f in rule.features] == [(3, 1.0), (7, 0.5)]


def test_the_digest_covers_every_file_used(tmp_path):
    write_concept(tmp_path)
    first = load(tmp_path).digest
    assert first == load(tmp_path).digest
    (tmp_path / "README.md").write_text("not used")
    assert load(tmp_path).digest == first
    path = tmp_path / "greed.yaml"
    path.write_text(path.read_text() + "# a comment\n")
    assert load(tmp_path).digest != first


def test_a_lock_gives_the_numbers(tmp_path):
    write_concept(tmp_path)
    (policy,) = load(tmp_path).policies
    (rule,) = policy.rules
    assert (rule.threshold, [f.index for f in rule.features]) == (0.25, [5])
    assert policy.clamps == (Clamp(6, -1.0),)


@pytest.mark.parametrize(("maturity", "mode"), [("experimental", Mode.SHADOW), ("beta", Mode.ENFORCE)])
def test_a_mode_left_out_follows_the_card(tmp_path, maturity, mode):
    path, examples = write_concept(tmp_path)
    lock = lock_for(examples).model_dump(by_alias=True)
    lock["card"]["maturity"] = maturity
    write_lock(path, LockModel.model_validate(lock))
    (policy,) = load(tmp_path).policies
    assert (policy.maturity, policy.rules[0].mode) == (maturity, mode)
    path.write_text(path.read_text().replace("    action:", "    mode: enforce\n    action:"))
    assert load(tmp_path).policies[0].rules[0].mode is Mode.ENFORCE


def test_files_that_would_be_overlooked_are_refused(tmp_path):
    write_policy(tmp_path, PINNED)
    shutil.copy(tmp_path / "greed.yaml", tmp_path / "other.yml")
    assert "would not be read" in problems(tmp_path)[0].message


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    assert "holds no policy" in problems(tmp_path)[0].message
    assert "is not a folder" in problems(tmp_path / "nowhere")[0].message


def test_every_problem_of_every_file_in_one_error(tmp_path):
    write_policy(tmp_path, PINNED.replace("threshold: 0.8", "threshold: high"))
    write_policy(
        tmp_path,
        PINNED.replace("name: greed", "name: envy").replace("severity: high", "sevrity: high"),
        "envy",
    )
    with pytest.raises(PolicyError) as caught:
        read_folder(tmp_path)
    text = str(caught.value)
    assert "greed.yaml:13:16: `rules[0].threshold` must be a valid number; found 'high'" in text
    assert (
        "   13 |     threshold: high\n       |                ^\n       = write a number, such as 0.8" in text
    )
    assert "envy.yaml:6:3: unknown field `metadata.sevrity`" in text
    assert "did you mean `severity`?" in text
    assert "the field `metadata.severity` is missing" in text


def test_example_rows_are_checked_line_by_line(tmp_path):
    write_concept(tmp_path)
    path = tmp_path / "greed.yaml"
    head, tail = path.read_text().split("concept:")
    path.write_text(head + "concept:\n  examples: rows.jsonl\nrules:" + tail.split("rules:")[1])
    rows = [
        '{"text": "a", "label": "positive"}',
        "{",
        '{"text": "b", "label": "maybe"}',
        '{"text": "a", "label": "negative"}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    found = problems(tmp_path)
    assert [p.line for p in found] == [2, 3, 4]
    assert "repeats the text of line 1" in found[2].message
