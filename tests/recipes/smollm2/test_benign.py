"""The benign texts are what the model said to questions of ours, each once, in files that a fit reads."""

from collections import Counter
from pathlib import Path

from monitor.policy.files.benign import read_benign_texts
from monitor.recipes.smollm2.benign import EXCHANGES, benign_rows, write_benign
from monitor.recipes.smollm2.questions import WRITTEN_HERE, written_here

ANSWERS = [
    {"source": WRITTEN_HERE, "asked": question.digest, "text": f"answer {question.number} to {question.kind}"}
    for question in written_here()
]
OTHERS = [
    {"source": "instruct", "asked": ANSWERS[0]["asked"], "text": "of a corpus"},
    {"source": WRITTEN_HERE, "asked": "0" * 16, "text": "to a question that is not asked any more"},
    {"source": WRITTEN_HERE, "asked": ANSWERS[3]["asked"], "text": ""},
]


def said(rows: dict[str, list[dict]]) -> list[str]:
    found = [row for kind in rows.values() for row in kind]
    turns = [turn for row in found for turn in row.get("messages", ()) if turn["role"] == "assistant"]
    return [row["text"] for row in found if "text" in row] + [turn["content"] for turn in turns]


def test_every_answer_stands_once_and_none_about_the_model_itself() -> None:
    texts = said(benign_rows([*OTHERS, *ANSWERS]))
    assert len(texts) > 650
    assert Counter(texts).most_common(1)[0][1] == 1
    assert not [text for text in texts if text.endswith("dialogue") or not text.startswith("answer ")]


def test_conversations_have_the_lengths_that_are_wanted() -> None:
    exchanges = [len(row["messages"]) // 2 for row in benign_rows(ANSWERS)["dialogue"]]
    assert set(exchanges) == {1, *EXCHANGES}
    for row in benign_rows(ANSWERS)["dialogue"]:
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * (
            len(row["messages"]) // 2
        )


def test_a_fit_reads_the_files(tmp_path: Path) -> None:
    counted = write_benign(ANSWERS, tmp_path)
    for kind, rows in counted.items():
        found = read_benign_texts(tmp_path / f"{kind}.jsonl")
        assert (len(found), {text.kind for text in found}) == (rows, {kind})
