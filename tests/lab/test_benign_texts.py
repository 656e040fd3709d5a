import itertools
import json
from pathlib import Path

import pytest

from monitor.errors import InputError
from monitor.lab.benign_texts import (
    LEARNT,
    LEAST_BENIGN,
    SPREAD,
    STANDARD_LIBRARY,
    benign_texts,
    dialogue_turns,
    documents,
    excerpt,
    further_texts,
    standard_library,
)
from monitor.lab.splits import Split

SHIPPED = Path(__file__).parents[2] / "policies"


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": f"Line {i} of a book. " * 9}) + "\n" for i in range(400)))
    return path


def test_what_a_fit_reads_is_never_measured_on(corpus):
    halves = [set(documents([corpus], side)) for side in ("train", "heldout")]
    assert halves[0].isdisjoint(halves[1])
    assert sum(map(len, halves)) == 400
    assert all(150 < len(half) < 250 for half in halves)
    found = benign_texts(SHIPPED, [corpus])
    assert not {text for half in halves[1:] for text in half} & {*found.learnt, *found.aside}


def test_the_share_that_a_fit_reads_is_the_callers_to_choose(corpus):
    assert len(list(documents([corpus], "train", Split(1.0)))) == 400
    assert not list(documents([corpus], "heldout", Split(1.0)))
    tenth, half = (set(documents([corpus], "train", Split(share))) for share in (0.1, 0.5))
    assert tenth < half
    assert 20 < len(tenth) < 70
    assert set(documents([corpus], "train", Split(0.5, seed=1))) != half


def test_too_few_benign_texts_are_refused(tmp_path):
    with pytest.raises(InputError, match="0 benign texts cannot set a threshold"):
        benign_texts(tmp_path, [])


def test_long_documents_give_pieces_from_all_over(tmp_path):
    book = "".join(f"Sentence number {i}. " for i in range(20_000))
    (tmp_path / "book.jsonl").write_text(json.dumps({"text": book}) + "\n")
    pieces = list(documents([tmp_path / "book.jsonl"], "train", Split(1.0)))
    assert 4 <= len(pieces) <= 10
    assert all(piece in book for piece in pieces)
    assert len({excerpt(piece, *SPREAD) for piece in pieces}) == len(pieces)


def folder_of(path, count, groups):
    path.mkdir(exist_ok=True)
    rows = [{"text": f"{i} apples lay in the grass.", "group": f"g{i % groups}"} for i in range(count)]
    (path / "benign").mkdir()
    (path / "benign" / "prose.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_half_of_the_texts_teach_and_no_group_is_parted(tmp_path):
    found = benign_texts(folder_of(tmp_path / "some", 400, 80), [])
    assert 200 <= len(found.learnt) <= 205
    assert len(found.learnt) + len(found.calibrating) == 400
    taught = {int(text.split()[0]) % 80 for text in found.learnt}
    assert not taught & {int(row.text.split()[0]) % 80 for row in found.calibrating}
    assert set(found.aside) == {row.text for row in found.calibrating}
    again = benign_texts(tmp_path / "some", [])
    assert again == found


def test_few_texts_all_teach_and_of_many_most_set_thresholds(tmp_path):
    few = benign_texts(folder_of(tmp_path / "few", LEAST_BENIGN, 100), [])
    assert (len(few.learnt), few.calibrating) == (LEAST_BENIGN, [])
    many = benign_texts(folder_of(tmp_path / "many", 2000, 2000), [])
    assert (len(many.learnt), len(many.calibrating)) == (LEARNT, 2000 - LEARNT)


def test_a_written_dialogue_is_a_conversation():
    text = "Human: Hi.\n\nAssistant: Hello.\n\nHuman: A poem\n\nin lines?\n\nAssistant: Yes:\n\nO sky"
    assert [(turn["role"], turn["content"]) for turn in dialogue_turns(text)] == [
        ("user", "Hi."),
        ("assistant", "Hello."),
        ("user", "A poem\n\nin lines?"),
        ("assistant", "Yes:\n\nO sky"),
    ]
    assert dialogue_turns("It rained. Human: yes") == ()


def test_further_files_say_their_kind_by_what_they_are(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    return 1\n")
    (tmp_path / "b.md").write_text("It rained.")
    rows = [{"text": "Human: Hi.\n\nAssistant: Hello."}, {"messages": [{"role": "user", "content": "Why?"}]}]
    rows += [{"text": "O sky", "kind": "poems", "group": "7"}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {(row.kind, row.plain) for row in further_texts([tmp_path], Split(1.0))}
    assert found == {
        ("code", "def f():\n    return 1\n"),
        ("prose", "It rained."),
        ("dialogue", "Hi.\n\nHello."),
        ("dialogue", "Why?"),
        ("poems", "O sky"),
    }
    groups = {row.plain: row.group for row in further_texts([tmp_path], Split(1.0))}
    assert groups["O sky"] == "7"


def test_the_standard_library_is_code_and_prose():
    found = list(itertools.islice(standard_library(), 40))
    assert {row.kind for row in found} == {"code", "prose"}
    assert all(row.text.strip() for row in found)
    assert len({row.group for row in found}) == 40
    assert list(itertools.islice(further_texts([STANDARD_LIBRARY]), 40)) == found
