"""The commands that look at features, run as users run them, on a small random pair."""

from __future__ import annotations

from tests.cli.features.described import run
from tests.cli.small_pair import FEATURES


def test_what_is_wrong_is_said(pair, bare, tmp_path):
    assert (
        f"features 0 to {FEATURES - 1}"
        in run("features", "show", FEATURES, *pair.dictionary_option, code=2).stderr
    )
    assert "dictionary describe" in run("features", "show", 1, *bare.dictionary_option, code=2).stderr
    assert "dictionary describe" in run("features", "search", "a text", *bare.options, code=2).stderr
    assert "dictionary describe" in run("features", "label", "--auto", *bare.dictionary_option, code=2).stderr
    assert "empty" in run("features", "search", "one", " ", *pair.options, code=2).stderr
    assert "together" in run("features", "search", "one", "--model", pair.model, code=2).stderr
    assert "--auto alone" in run("features", "label", 3, *pair.dictionary_option, code=2).stderr
    assert (
        "ends in"
        in run("features", "map", 3, "--out", tmp_path / "x.jpeg", *pair.dictionary_option, code=2).stderr
    )
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    wrong = run("features", "contrast", "--positive", empty, "--negative", pair.corpus, *pair.options, code=2)
    assert "holds no text" in wrong.stderr
    one = tmp_path / "one.txt"
    one.write_text("alone\n")
    wrong = run("features", "contrast", "--positive", one, "--negative", pair.corpus, *pair.options, code=2)
    assert "two of each side" in wrong.stderr
    assert (
        "no file"
        in run("features", "contrast", "--labelled", tmp_path / "gone.jsonl", *pair.options, code=2).stderr
    )
