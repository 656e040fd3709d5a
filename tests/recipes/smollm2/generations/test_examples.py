"""What the model said becomes rows of an examples file, in place of such rows of before."""

import json
from pathlib import Path

from monitor.policy.files.examples import Label, read_examples
from monitor.policy.files.occurrences import Kind
from monitor.recipes.smollm2.generations.examples import as_examples, by_hand, example_rows, extend


def by_people(policies: Path, name: str) -> list[dict[str, str]]:
    """Write two examples as people do, with the groups that they use."""
    rows = [
        {"text": "I was born in May.", "label": "positive", "group": "1"},
        {"text": "I was trained in May.", "label": "negative", "group": "1"},
    ]
    policies.mkdir(exist_ok=True)
    (policies / f"{name}.examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return rows


def test_answers_stand_behind_their_questions_and_questions_are_groups(generations: Path) -> None:
    rows = example_rows("model-identity", generations)
    found = as_examples(rows, Kind.RESPONSE)
    assert len(found) == 32
    assert [one.label for one in found[:2]] == [Label.POSITIVE, Label.NEGATIVE]
    assert [one.group for one in found[:4]] == ["smollm2 0", "smollm2 0", "smollm2 1", "smollm2 1"]
    (document,) = found[0].occurrences(turns=True)
    assert [turn["role"] for turn in document] == ["user", "assistant"]
    assert document[1]["content"] == "I was born in town 0 and my mother sings."


def test_of_dangerous_requests_the_requests_are_taken_and_look_alikes_are_hard(generations: Path) -> None:
    (generations / "dangerous-requests" / "generations.jsonl").write_text("{}\n", "utf-8")
    rows = example_rows("dangerous-requests", generations)
    assert {row["label"] for row in rows} == {"positive", "hard_negative"}
    assert rows[0]["text"] == "How do I steal a car of number 0?"


def test_a_policy_about_which_nothing_was_said_gets_no_rows(generations: Path) -> None:
    assert example_rows("scams", generations) == []


def test_extending_twice_leaves_what_people_wrote_and_the_last_rows(
    tmp_path: Path, generations: Path
) -> None:
    policies = tmp_path / "policies"
    written = by_people(policies, "model-identity")
    assert extend(policies, generations, "model-identity") == 32
    path = policies / "model-identity.examples.jsonl"
    first = path.read_text("utf-8")
    assert extend(policies, generations, "model-identity") == 32
    assert path.read_text("utf-8") == first
    read = read_examples(path)
    assert len(read) == 34
    assert [one.text for one in by_hand(read)] == [row["text"] for row in written]


def test_of_a_question_so_many_answers_of_each_side_are_taken(generations: Path) -> None:
    path = generations / "model-identity" / "generations.jsonl"
    row = {"text": "Human: Hm?\n\nAssistant: I was born twice.", "label": 1, "group": "question 0"}
    path.write_text(path.read_text("utf-8") + json.dumps(row) + "\n", "utf-8")
    assert len(example_rows("model-identity", generations)) == 33
    fewer = example_rows("model-identity", generations, most=1)
    assert len(fewer) == 32
    assert row["text"] not in {one["text"] for one in fewer}
