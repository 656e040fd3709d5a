"""Rows of examples files."""

import json

import pytest

from monitor.policy.files.examples import (
    Example,
    Label,
    concept_examples,
    examples_digest,
    read_examples,
)
from monitor.policy.files.occurrences import Kind
from monitor.policy.files.yaml_document import PolicyProblems
from monitor.policy.schema.policy import Concept

TURNS = [{"role": "user", "content": "Is it flat?"}, {"role": "assistant", "content": "Yes, clever you."}]


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_example_with_two_labels_is_refused(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text(
        '{"text": "a", "label": "positive"}\n{"text": "b", "label": "positive", "label": "negative"}\n'
    )
    with pytest.raises(PolicyProblems) as caught:
        read_examples(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.message) == (2, "the key `label` stands here twice")


def test_rows_say_where_their_texts_occur(tmp_path):
    path = written(
        tmp_path / "e.jsonl",
        {"text": "a", "label": "positive", "kind": "response"},
        {"text": "b", "label": "negative"},
        {"messages": TURNS, "label": "positive", "group": "g"},
    )
    said, plain, spoken = read_examples(path, Kind.REQUEST)
    assert (said.kind, plain.kind) == (Kind.RESPONSE, Kind.REQUEST)
    assert spoken.text == "Human: Is it flat?\n\nAssistant: Yes, clever you."
    assert spoken.occurrences(turns=True) == (tuple(TURNS),)
    assert spoken.occurrences(turns=False) == (spoken.text,)
    assert plain.occurrences(turns=True) == (({"role": "user", "content": "b"},),)


def test_the_kind_of_a_concept_is_that_of_rows_without_one(tmp_path):
    written(tmp_path / "e.jsonl", {"text": "a", "label": "positive"}, {"text": "b", "label": "negative"})
    concept = Concept(examples="e.jsonl", kind="request", positive=["c"])
    assert {example.kind for example in concept_examples(concept, tmp_path)} == {Kind.REQUEST}
    assert {e.kind for e in concept_examples(Concept(examples="e.jsonl"), tmp_path)} == {Kind.STATEMENT}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"label": "positive"}, "write either `text` or `messages`"),
        ({"text": "a", "messages": TURNS, "label": "positive"}, "write either `text` or `messages`"),
        ({"messages": TURNS, "kind": "request", "label": "positive"}, "`kind` goes with `text`"),
        ({"messages": [{"role": "tool", "content": "x"}], "label": "positive"}, "role"),
        ({"text": "a", "kind": "shout", "label": "positive"}, "kind"),
    ],
)
def test_rows_that_say_too_little_or_too_much_are_refused(tmp_path, row, said):
    path = written(tmp_path / "e.jsonl", row, {"text": "b", "label": "negative"})
    with pytest.raises(PolicyProblems) as caught:
        read_examples(path)
    (problem,) = caught.value.problems
    assert problem.line == 1
    assert said in problem.message


def test_where_a_text_occurs_is_part_of_the_digest_and_statements_count_as_ever():
    one = Example("a", Label.POSITIVE, "g")
    assert examples_digest([one]) == examples_digest([Example("a", Label.POSITIVE, "g", Kind.STATEMENT)])
    others = [
        Example("a", Label.POSITIVE, "g", Kind.REQUEST),
        Example("a", Label.POSITIVE, "g", Kind.TEXT),
        Example("a", Label.POSITIVE, "g", messages=tuple(TURNS)),
    ]
    assert len({examples_digest([example]) for example in [one, *others]}) == 4
