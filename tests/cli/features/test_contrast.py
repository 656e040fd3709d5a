"""`features contrast`: two files, or one with labels."""

from __future__ import annotations

import json

import pytest

from monitor.cli.features.contrast import _sides
from monitor.errors import InputError
from tests.cli.features.described import activations, run


def test_contrast_takes_two_files_or_one_with_labels(pair, tmp_path):
    positive, negative, both = tmp_path / "p.txt", tmp_path / "n.jsonl", tmp_path / "both.jsonl"
    wanted = [f"I want more power number {i}" for i in range(12)]
    harmless = [f"the cat sat on mat number {i}" for i in range(12)]
    positive.write_text("\n".join(wanted))
    negative.write_text("\n".join(json.dumps({"text": text}) for text in harmless))
    rows = [{"text": t, "label": 1} for t in wanted] + [{"text": t, "label": 0} for t in harmless]
    both.write_text("\n".join(map(json.dumps, rows)))
    two = json.loads(
        run(
            "features", "contrast", "--positive", positive, "--negative", negative, *pair.options, "--json"
        ).stdout
    )
    one = json.loads(run("features", "contrast", "--labelled", both, *pair.options, "--json").stdout)
    assert two == one
    best = two["features"][0]
    assert best["auroc"] > 0.9
    fires = [float(activations(pair, text)[:, best["feature"]].max()) > 0 for text in wanted]
    assert best["fires +"] == pytest.approx(sum(fires) / 12, abs=1e-3)
    mean = run("features", "contrast", "--labelled", both, "--pool", "mean", *pair.options).stdout
    assert "mean-pooled" in mean


def test_sides_are_two_files_or_one_with_labels(tmp_path):
    (tmp_path / "yes.txt").write_text("one\ntwo\n")
    (tmp_path / "no.txt").write_text("three\n")
    (tmp_path / "both.csv").write_text("text,label\none,1\nthree,0\n")
    (tmp_path / "some.jsonl").write_text('{"text": "one", "label": 1}\n{"text": "two"}\n')
    yes, no, both = tmp_path / "yes.txt", tmp_path / "no.txt", tmp_path / "both.csv"
    assert _sides(yes, no, None) == (["one", "two", "three"], [True, True, False])
    assert _sides(None, None, both) == (["one", "three"], [True, False])
    assert _sides(both, both, None) == (["one", "three"], [True, False]), "a labelled file gives its own side"
    with pytest.raises(InputError, match=r"some\.jsonl has rows without `label`; write 1 or 0 on each"):
        _sides(None, None, tmp_path / "some.jsonl")
    for wrong in ((yes, None, None), (None, None, None), (yes, no, both)):
        with pytest.raises(InputError, match="give --positive and --negative, or --labelled alone"):
            _sides(*wrong)
