"""`policy cost` on the bundled pair, and what it refuses."""

import json

import pytest

from monitor.lab.cost.edits import DENSE, DROPPED, NOTHING, OWN, PROJECTED
from monitor.rpc.assembly import bundled_policies


@pytest.mark.slow
def test_the_whole_command_on_the_bundled_pair(run, tmp_path):
    locks = {path: path.read_text() for path in bundled_policies().glob("locks/tiny/*.lock.yaml")}
    name = next(path.name.split(".")[0] for path, text in locks.items() if "attribution:" in text)
    sizes = ["--prompts", "20", "--texts", "20", "--new", "4", "--head", "3", "--target", "-1"]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"good": "They have a house.", "bad": "They has a house."}\n')
    done = run("policy", "cost", name, *sizes, "-o", str(tmp_path), "--minimal-pairs", str(pairs))
    assert done.exit_code == 0, done.stderr
    report = json.loads((tmp_path / f"{name}.cost.json").read_text())
    by_way = {(p["way"], p["strength"]): p for p in report["points"]}
    nothing = by_way[NOTHING, 0.0]
    assert (nothing["kl"], nothing["perplexity_ratio"], nothing["change"]["value"]) == (0, 1, 0)
    assert {way for way, _ in by_way} >= {OWN, DROPPED, DENSE, "zero ablation"}
    assert by_way[OWN, -1.0]["kl"] > 0
    assert by_way[OWN, -1.0]["own_score"] < nothing["own_score"]
    assert by_way[OWN, -1.0]["right"]["trials"] == 1
    assert {one["rival"] for one in report["equal_kl"]} == {DENSE, PROJECTED}
    for one in report["equal_kl"]:
        assert one["rival_kl"] == pytest.approx(one["kl"], rel=0.06)
    page = (tmp_path / f"{name}.cost.md").read_text()
    assert "Recommended" in page
    assert f"({name}.cost.png)" in page
    assert (tmp_path / f"{name}.cost.png").stat().st_size > 10_000


@pytest.mark.slow
def test_policies_that_do_not_suppress_are_refused(run):
    quiet = next(
        path.name.split(".")[0]
        for path in bundled_policies().glob("*.yaml")
        if path.name.count(".") == 1 and "\nsuppress:" not in path.read_text()
    )
    assert "nothing to measure" in run("policy", "cost", quiet).stderr
    assert "no policy called nobody" in run("policy", "cost", "nobody").stderr
    missing = run("policy", "cost", "deception", "--minimal-pairs", "nowhere.jsonl").stderr
    assert "no file of minimal pairs can be read there" in missing
