import shutil

import pytest

from monitor.errors import PolicyError
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockModel, write_lock
from monitor.policy.files.lock_folders import lock_path
from monitor.records import Action, Clamp, Mode, Severity, Where
from tests.policy.files.loaded import load, problems
from tests.policy.policy_files import EXAMPLES, NOTHING, PAIR, PINNED, lock_for, write_concept, write_policy


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


def relocked(**changes):
    return LockModel.model_validate(lock_for(EXAMPLES).model_dump(by_alias=True) | changes)


def test_of_the_locks_of_several_pairs_that_of_what_runs_is_taken(tmp_path):
    path, _ = write_concept(tmp_path)
    first = load(tmp_path)
    feature = {"index": 7, "weight": 1.0, "maximum": 2.0}
    other = relocked(model={"name": "m", "digest": NOTHING}, features=[feature])
    write_lock(path, other, "a-pair")
    assert load(tmp_path).digest == first.digest, "locks of other pairs are no part of the set"
    assert load(tmp_path).watch.features == first.watch.features
    assert 7 in load(tmp_path, model_digest=NOTHING).watch.features
    # What is wrong with the lock of another pair is its business.
    lock_path(path, "a-pair").write_text("rules: [")
    assert load(tmp_path).digest == first.digest


def test_what_a_folder_of_locks_is_called_means_nothing(tmp_path):
    path, _ = write_concept(tmp_path)
    first = load(tmp_path)
    lock_path(path, PAIR).parent.rename(tmp_path / "locks" / "anything")
    assert load(tmp_path).digest == first.digest


def test_two_locks_for_what_runs_are_refused(tmp_path):
    path, _ = write_concept(tmp_path)
    again = write_lock(path, lock_for(EXAMPLES), "again")
    (found,) = problems(tmp_path)
    assert found.message == f"is of the same pair as {again}"


def test_a_lock_beside_its_policy_is_refused_with_the_place_where_it_belongs(tmp_path):
    path, _ = write_concept(tmp_path)
    lock_path(path, PAIR).rename(tmp_path / "greed.lock.yaml")
    (found,) = problems(tmp_path)
    assert found.message == "is not read here: each pair has a folder of locks of its own"
    assert f"{tmp_path}/locks/PAIR/greed.lock.yaml" in found.hint


@pytest.mark.parametrize(("maturity", "mode"), [("experimental", Mode.SHADOW), ("beta", Mode.ENFORCE)])
def test_a_mode_left_out_follows_the_card(tmp_path, maturity, mode):
    path, examples = write_concept(tmp_path)
    lock = lock_for(examples).model_dump(by_alias=True)
    lock["card"]["maturity"] = maturity
    write_lock(path, LockModel.model_validate(lock), PAIR)
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
        read_folder(tmp_path, None)
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
