"""What the dictionary learns from: the form of each text, and nothing that is held out."""

import json
from pathlib import Path

import pytest

from monitor.recipes.corpus import CorpusText
from monitor.recipes.smollm2.questions import questions
from monitor.recipes.smollm2.texts import write_texts

DIALOGUE = "Human: Hello?\n\nAssistant: Good morning."


def _lines(source: str) -> list[dict]:
    path, _, share = source.rpartition("=")
    assert float(share) > 0
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def test_dialogues_are_conversations_and_held_out_texts_are_not_there(tmp_path: Path) -> None:
    corpora = {
        "hh_harmless": [CorpusText(DIALOGUE, "train"), CorpusText("Human: secret", "heldout")],
        "gutenberg": [CorpusText("A book.", "train")],
        "labelled/truth": [CorpusText("Measured only.", "train")],
    }
    found = {Path(s.rpartition("=")[0]).stem: _lines(s) for s in write_texts(corpora, [], [], tmp_path)}
    assert found == {
        "hh_harmless": [
            {
                "messages": [
                    {"role": "user", "content": "Hello?"},
                    {"role": "assistant", "content": "Good morning."},
                ]
            }
        ],
        "gutenberg": [{"text": "A book."}],
    }


@pytest.mark.parametrize(
    ("name", "places"), [("labelled/power_seeking", 3), ("labelled/dangerous_request", 2)]
)
def test_labelled_texts_stand_in_every_place_where_policies_read_them(
    tmp_path: Path, name: str, places: int
) -> None:
    (source,) = write_texts({name: [CorpusText("Give me power.", "train")]}, [], [], tmp_path)
    lines = _lines(source)
    assert len(lines) == places
    assert lines[0] == {"text": "Give me power."}
    assert [line["messages"][-1]["role"] for line in lines[1:]] == ["user", "assistant"][: places - 1]
    assert all(line["messages"][-1]["content"] == "Give me power." for line in lines[1:])


def test_answers_follow_their_questions(tmp_path: Path) -> None:
    asked = questions({})[:2]
    rows = [
        {"source": q.source, "number": q.number, "asked": q.digest, "text": text}
        for q, text in zip(asked, ("An answer.", ""), strict=True)
    ]
    (source,) = write_texts({}, rows, asked, tmp_path)
    (line,) = _lines(source)
    assert line["messages"] == [*asked[0].turns, {"role": "assistant", "content": "An answer."}]


def test_answers_to_other_questions_are_an_error(tmp_path: Path) -> None:
    row = {"source": "topics", "number": 3, "asked": "f" * 16, "text": "Hm."}
    with pytest.raises(ValueError, match="topics 3 is not in this data"):
        write_texts({}, [row], [], tmp_path)
