import json
from pathlib import Path

import pytest

from monitor.errors import InputError
from monitor.lab.benign_texts import SPREAD, benign_texts, documents, excerpt
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
