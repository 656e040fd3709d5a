"""Benign texts beside policies: what a row may say, and which files are read."""

import json

import pytest

from monitor.policy.files.benign import (
    CODE,
    DIALOGUE,
    INSTRUCTIONS,
    benign_files,
    folder_benign_texts,
    read_benign,
    read_benign_kinds,
    read_benign_texts,
)
from monitor.policy.files.lint import check_folder
from monitor.policy.files.occurrences import Kind
from monitor.policy.files.yaml_document import PolicyProblems
from tests.policy.policy_files import PINNED, write_policy

ASKED = {"role": "user", "content": "Why is the sky blue?"}
SAID = {"role": "assistant", "content": "Because air scatters blue light."}


def write(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_rows_are_texts_or_conversations_of_a_kind(tmp_path):
    path = write(
        tmp_path / "benign" / "code-mine.jsonl",
        {"text": "print(1)", "group": "a.py"},
        {"messages": [ASKED, SAID]},
        {"messages": [ASKED]},
        {"kind": "poems", "text": "O sky"},
    )
    code, dialogue, request, poem = read_benign_texts(path)
    assert (code.kind, code.plain, code.group) == (CODE, "print(1)", "a.py")
    assert (dialogue.kind, dialogue.prompt, dialogue.answer) == (DIALOGUE, (ASKED,), SAID["content"])
    assert dialogue.plain == "Why is the sky blue?\n\nBecause air scatters blue light."
    assert (request.prompt, request.answer, request.answered) == ((ASKED,), "", False)
    assert poem.kind == "poems"
    assert len({one.group for one in (code, dialogue, request, poem)}) == 4


def test_a_folder_has_its_file_and_its_folder(tmp_path):
    write(tmp_path / "benign.jsonl", {"text": "How many legs has a spider?"})
    write(tmp_path / "benign" / "prose.jsonl", {"text": "It rained."}, {"text": "It rained."})
    assert [path.name for path in benign_files(tmp_path)] == ["benign.jsonl", "prose.jsonl"]
    assert [(one.kind, one.text) for one in folder_benign_texts(tmp_path)] == [
        (INSTRUCTIONS, "How many legs has a spider?"),
        ("prose", "It rained."),
    ]
    assert folder_benign_texts(tmp_path / "benign") == []


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("{", "is not a JSON object"),
        ({}, "write either `text` or `messages`"),
        ({"text": "a", "messages": [ASKED]}, "write either `text` or `messages`"),
        ({"text": ""}, "text: String should have at least 1 character"),
        ({"text": "a", "kind": "Two words"}, "kind: String should match"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages: 0: role"),
        ({"text": "a", "size": 1}, "size"),
    ],
)
def test_a_bad_row_is_named_with_its_line_also_by_policy_check(tmp_path, row, word):
    path = write(tmp_path / "benign" / "prose.jsonl", {"text": "It rained."}, row)
    with pytest.raises(PolicyProblems) as caught:
        read_benign_texts(path)
    assert word in str(caught.value)
    assert "prose.jsonl:2" in str(caught.value)
    write_policy(tmp_path, PINNED)
    with pytest.raises(PolicyProblems, match=r"prose\.jsonl:2"):
        check_folder(tmp_path)


def test_an_empty_file_is_named(tmp_path):
    with pytest.raises(PolicyProblems, match="has no rows"):
        read_benign_texts(write(tmp_path / "prose.jsonl", " "))


def test_rows_that_say_where_they_occur(tmp_path):
    path = tmp_path / "b.jsonl"
    turns = [{"role": "user", "content": "Is it flat?"}, {"role": "assistant", "content": "Yes, clever you."}]
    rows = (
        {"text": "a"},
        {"text": "b", "kind": "request"},
        {"text": "c", "kind": "prose"},
        {"messages": turns},
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dialogue = "Human: Is it flat?\n\nAssistant: Yes, clever you."
    assert read_benign(path) == ("a", "b", "c", dialogue)
    assert read_benign_kinds(path) == {
        "a": Kind.STATEMENT,
        "b": Kind.REQUEST,
        "c": Kind.STATEMENT,
        dialogue: Kind.STATEMENT,
    }
