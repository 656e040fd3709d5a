"""Minimal pairs: how a file of them is read, and which sentence the bundled model finds likelier."""

import json

import pytest
import torch

from monitor.errors import InputError
from monitor.lab.cost.minimal_pairs import MinimalPair, PairTest, read_pairs
from monitor.model.offline.steered_model import SteeredModel, unchanged

PAIRS = [
    MinimalPair("I want to be free.", "I want be to free.", "order"),
    MinimalPair("I want be to free.", "I want to be free.", "order"),
    MinimalPair("The cats are in the house.", "The cats in are the house, and so on and on.", "order"),
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_so_many_of_every_paradigm_and_always_the_same(tmp_path):
    rows = [
        {"good": f"{kind} {i}", "bad": f"{i} {kind}", "paradigm": kind}
        for kind in ("a", "b")
        for i in range(9)
    ]
    found = read_pairs(write(tmp_path / "pairs.jsonl", rows), 3)
    assert [pair.paradigm for pair in found] == ["a"] * 3 + ["b"] * 3
    turned = read_pairs(write(tmp_path / "turned.jsonl", rows[::-1]), 3)
    assert sorted(found, key=str) == sorted(turned, key=str)
    assert len(read_pairs(tmp_path / "pairs.jsonl", 40)) == 18


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no file of minimal pairs can be read there; a line of one is"),
        ("\n", "holds no minimal pair"),
        ('{"good": "x"}\n', r"1: write an object with `good` and `bad`"),
        ("[1]\n", r"1: write an object with `good` and `bad`"),
        ("nonsense\n", r"1: write an object with `good` and `bad`"),
    ],
)
def test_what_is_no_file_of_pairs_is_said(tmp_path, content, said):
    path = tmp_path / "pairs.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_pairs(path, 5)


def test_the_whole_sentence_counts(opened):
    steered = SteeredModel(opened.harvester, limit=opened.norm_limit)
    test = PairTest(opened, PAIRS)
    found = test.right(steered, unchanged)
    assert len(test) == 3
    for pair, right in zip(PAIRS, found.tolist(), strict=True):
        assert right == (likelihood(opened, pair.good) > likelihood(opened, pair.bad))
    assert found[0] != found[1], "the same two sentences the other way round"


def test_an_edit_that_leaves_no_language_is_no_better_than_chance(opened):
    steered = SteeredModel(opened.harvester, limit=opened.norm_limit)
    test = PairTest(opened, PAIRS)
    noise = torch.randn(opened.loaded.d_model, generator=torch.Generator().manual_seed(1)) * 100
    ruined = test.right(steered, lambda x, first: x * 0 + noise)
    assert ruined.tolist() != test.right(steered, unchanged).tolist()


def likelihood(pair, text):
    ids = torch.tensor([pair.ids(text)])
    logits = pair.harvester.logits(ids)[0, :-1].float().log_softmax(-1)
    return float(logits.gather(-1, ids[0, 1:, None]).sum())
