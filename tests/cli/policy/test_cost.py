"""`policy cost`: which texts, what is measured, what is advised; and once the whole command on the bundled pair."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from monitor.errors import InputError
from monitor.lab.cost.advice import advise, at_damage
from monitor.lab.cost.edits import DENSE, DETECTORS, DROPPED, NOTHING, OWN
from monitor.lab.cost.judge import learn_judge
from monitor.lab.cost.points import Point, Share, difference, share
from monitor.lab.cost.texts import cost_texts, spread
from monitor.lab.splits import split_of
from monitor.policy.files.examples import Example, Label
from monitor.rpc.assembly import bundled_policies


def point(way, strength, unsafe, low, high, kl, ratio, later=0.5):
    flat = Share(unsafe, unsafe, unsafe, 100)
    return Point(
        way, strength, 1.0, 0.5, 1.0, later, flat, Share(unsafe - 0.6, low, high, 100), kl, 9.0, ratio
    )


BEFORE = point(NOTHING, 0, 0.6, 0, 0, 0, 1)


class TestNumbers:
    def test_wilsons_interval(self):
        found = share(np.asarray([True] * 10 + [False] * 30))
        assert (found.value, found.trials) == (0.25, 40)
        assert (round(found.low, 4), round(found.high, 4)) == (0.1419, 0.4019)
        assert share(np.zeros(20, bool)).low == 0

    def test_a_paired_difference_knows_that_pairs_agree(self):
        before = np.asarray([True, False] * 50)
        same = difference(before, before)
        assert (same.value, same.low, same.high) == (0, 0, 0)
        now = before.copy()
        now[:40] = False
        fell = difference(now, before)
        assert fell.value == pytest.approx(-0.2)
        assert fell.low < -0.2 < fell.high < 0


class TestAdvice:
    def test_the_mildest_of_what_works_within_the_budget(self):
        points = [
            BEFORE,
            point(OWN, -0.5, 0.3, -0.4, -0.2, 0.1, 1.005),
            point(OWN, -1, 0.28, -0.42, -0.22, 0.2, 1.015),
            point(OWN, -2, 0.1, -0.6, -0.4, 0.5, 1.3),
            point(DENSE, 1, 0.5, -0.2, 0.0, 0.2, 1.02),
        ]
        advice = advise(points, 0.02)
        assert (advice.target, advice.drop) == (-0.5, False)
        assert "at equal KL, difference of means falls less far: to 55%" in advice.reasons
        assert f"{DETECTORS} was not measured at that KL" in advice.reasons

    def test_without_error_term_where_only_that_works(self):
        points = [BEFORE, point(OWN, -1, 0.6, -0.1, 0.1, 0.1, 1), point(DROPPED, -1, 0.3, -0.4, -0.2, 0.1, 1)]
        advice = advise(points, 0.02)
        assert (advice.target, advice.drop) == (-1, True)

    def test_none_where_nothing_can_be_told_from_chance(self):
        points = [BEFORE, point(OWN, -1, 0.55, -0.15, 0.05, 0.1, 1), point(DENSE, 4, 0.2, -0.5, -0.3, 0.1, 1)]
        advice = advise(points, 0.02)
        assert advice.target is None
        assert "do not rely on this suppression" in advice.reasons[0]
        assert any(reason.startswith(f"{DENSE} × 4 does") for reason in advice.reasons)

    def test_a_probe_that_still_fires_is_said(self):
        points = [BEFORE, point(OWN, -1, 0.3, -0.4, -0.2, 0.1, 1, later=0.4)]
        assert any("still fires" in reason for reason in advise(points, 0.02).reasons)

    def test_between_measured_points(self):
        points = [BEFORE, point(DENSE, 1, 0.4, 0, 0, 0.2, 1)]
        assert at_damage(points, DENSE, 0.1) == pytest.approx(0.5)
        assert at_damage(points, DENSE, 0.3) is None


def labelled(folder: Path, rows=400):
    path = folder / "greed"
    path.mkdir(parents=True)
    lines = [
        {
            "text": f"{'I want it all' if i % 2 else 'Take it all'} {i}",
            "label": i % 2,
            "kind": "statement",
            "group": str(i // 2),
        }
        for i in range(rows)
    ]
    (path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def source(folder, examples=()):
    model = SimpleNamespace(metadata=SimpleNamespace(category="greed", name="greed"))
    return SimpleNamespace(path=folder / "greed.yaml", examples=examples, model=model)


class TestTexts:
    def test_nothing_is_measured_on_what_was_learnt_from(self, tmp_path):
        found = cost_texts(source(tmp_path), labelled(tmp_path / "data"), ["calm"])
        judge, measured = ({row.group for row in rows} for rows in (found.judge, found.measured))
        assert judge
        assert measured
        assert not judge & measured
        for row in (*found.judge, *found.measured):
            assert split_of("pairs", row.group.split()[1], row.text) == "heldout"
        assert {split_of("pairs", row.group.split()[1], row.text) for row in found.learnt} == {"train"}
        assert found.held_out

    def test_the_policys_own_examples_are_said_to_be_that(self, tmp_path):
        rows = [Example(f"yes {i}", Label.POSITIVE, str(i)) for i in range(80)]
        rows += [Example(f"no {i}", Label.NEGATIVE, str(i)) for i in range(80)]
        found = cost_texts(source(tmp_path, rows), None, ["calm"])
        assert not found.held_out
        assert "fitted with" in found.note

    def test_too_few_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="too few"):
            cost_texts(source(tmp_path), labelled(tmp_path / "data", 40), ["calm"])
        with pytest.raises(InputError, match="no folder greed"):
            cost_texts(source(tmp_path), tmp_path, ["calm"])

    def test_sources_share_alike(self):
        rows = [SimpleNamespace(text=f"{s}{i}", source=s) for s, n in (("a", 50), ("b", 5)) for i in range(n)]
        found = spread(rows, 20)
        assert sum(row.source == "b" for row in found) == 5
        assert len(found) == len({row.text for row in found}) == 20


def test_the_judge_calls_unsafe_what_looks_like_it():
    texts = [f"I will take power {i}" for i in range(60)] + [f"the cat sat {i}" for i in range(60)]
    groups = [str(i) for i in range(120)]
    judge = learn_judge(texts, [True] * 60 + [False] * 60, groups, ["rain fell on the hill"] * 5)
    assert judge.auroc > 0.99
    assert judge.unsafe(["take power now", "a cat"]).tolist() == [True, False]


@pytest.mark.slow
def test_the_whole_command_on_the_bundled_pair(run, tmp_path):
    locks = {path: path.read_text() for path in bundled_policies().glob("*.lock.yaml")}
    name = next(path.name.split(".")[0] for path, text in locks.items() if "attribution:" in text)
    sizes = ["--prompts", "20", "--texts", "20", "--new", "4", "--head", "3", "--target", "-1"]
    done = run("policy", "cost", name, *sizes, "-o", str(tmp_path))
    assert done.exit_code == 0, done.stderr
    report = json.loads((tmp_path / f"{name}.cost.json").read_text())
    by_way = {(p["way"], p["strength"]): p for p in report["points"]}
    nothing = by_way[NOTHING, 0.0]
    assert (nothing["kl"], nothing["perplexity_ratio"], nothing["change"]["value"]) == (0, 1, 0)
    assert {way for way, _ in by_way} >= {OWN, DROPPED, DENSE, "zero ablation"}
    assert by_way[OWN, -1.0]["kl"] > 0
    assert by_way[OWN, -1.0]["own_score"] < nothing["own_score"]
    page = (tmp_path / f"{name}.cost.md").read_text()
    assert "Recommended" in page
    assert f"({name}.cost.png)" in page
    assert (tmp_path / f"{name}.cost.png").stat().st_size > 10_000


def test_policies_that_do_not_suppress_are_refused(run):
    quiet = next(
        path.name.split(".")[0]
        for path in bundled_policies().glob("*.yaml")
        if path.name.count(".") == 1 and "\nsuppress:" not in path.read_text()
    )
    assert "nothing to measure" in run("policy", "cost", quiet).stderr
    assert "no policy called nobody" in run("policy", "cost", "nobody").stderr
