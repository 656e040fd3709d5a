import itertools

import pytest

from monitor.lab.splits import Split, split_of


def test_is_a_fixed_function_of_source_and_group():
    assert [split_of("caa", str(n), "any") for n in range(8)] == [
        split_of("caa", str(n), "") for n in range(8)
    ]
    digests = {n: split_of("caa", str(n), "") for n in range(2, 8)}
    assert digests == {2: "heldout", 3: "heldout", 4: "heldout", 5: "heldout", 6: "train", 7: "train"}


def test_keeps_a_group_together_and_halves_the_groups():
    halves = {n: {split_of("caa", str(n), text) for text in ("a", "b")} for n in range(400)}
    assert all(len(half) == 1 for half in halves.values())
    held = sum(half == {"heldout"} for half in halves.values())
    assert 150 < held < 250


@pytest.mark.parametrize("group", ["no-shut-down", ""], ids=["the source's own name", "no group"])
def test_a_group_that_says_nothing_is_split_by_text(group):
    found = {split_of("persona_no_shut_down", group, f"I am {n}") for n in range(20)}
    assert found == {"train", "heldout"}
    same = {split_of("persona_no_shut_down", group, t) for t in ("I am  HERE.", "i am here")}
    assert len(same) == 1


@pytest.mark.parametrize("name", ["caa", "caa.jsonl", "sycophancy/caa", "sycophancy/caa.jsonl"])
def test_folder_and_suffix_of_a_source_do_not_matter(name):
    assert all(split_of(name, str(n), "") == split_of("caa", str(n), "") for n in range(30))


def test_a_larger_share_holds_all_of_a_smaller_one():
    taken = {
        share: {n for n in range(2000) if split_of("caa", str(n), "", share) == "train"}
        for share in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)
    }
    sizes = [len(found) for found in taken.values()]
    assert sizes[0] == 0
    assert sizes[-1] == 2000
    assert sizes[1:-1] == pytest.approx([200, 600, 1000, 1800], abs=70)
    ordered = list(taken.values())
    assert all(small <= large for small, large in itertools.pairwise(ordered))


def test_another_seed_is_another_split_of_the_same_size():
    sides = [[Split(0.5, seed).side("caa", str(n), "") for n in range(1000)] for seed in (0, 1, 2)]
    assert sides[0] != sides[1] != sides[2]
    assert all(450 < side.count("train") < 550 for side in sides)
    agree = sum(a == b for a, b in zip(sides[0], sides[1], strict=True))
    assert 430 < agree < 570, "seeds draw independently"
