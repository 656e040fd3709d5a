"""`features show`, `near`, `label` and `map`."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from monitor.cli.features.one_feature import painter_for, shaded
from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.cards import labels
from monitor.dictionary.cards.card_file import Context
from tests.cli.features.described import described, run
from tests.cli.small_pair import write_small_pair


def test_show_prints_a_card_and_json_agrees(pair):
    record = json.loads(run("features", "show", 5, *pair.dictionary_option, "--json").stdout)
    assert record["feature"] == 5
    assert record["maximum"] == pytest.approx(record["contexts"][0]["peak"], abs=1e-3)
    assert len(record["promoted"]) == len(record["suppressed"]) == len(record["neighbours"]) == 10
    text = run("features", "show", 5, *pair.dictionary_option).stdout
    assert f"feature 5  {record['label']}" in text
    assert "promotes" in text
    assert "neighbours" in text


def test_near_lists_neighbours_of_the_card(pair):
    shown = json.loads(run("features", "show", 7, *pair.dictionary_option, "--json").stdout)["neighbours"]
    near = json.loads(run("features", "near", 7, *pair.dictionary_option, "-k", 10, "--json").stdout)["near"]
    assert [row["feature"] for row in near] == [other for other, _ in shown]
    assert "cosine" in run("features", "near", 7, *pair.dictionary_option).stdout


def test_a_hand_label_shows_and_automatic_labelling_keeps_it(tmp_path):
    own = write_small_pair(tmp_path)
    described(*own.options, "--data", own.corpus, "--tokens", "1000", "--length", "64")
    run("features", "label", 3, "wants power", *own.dictionary_option)
    run("features", "label", "--auto", *own.dictionary_option)
    described(*own.options, "--data", own.corpus, "--tokens", "1000", "--length", "64")
    record = json.loads(run("features", "show", 3, *own.dictionary_option, "--json").stdout)
    assert (record["label"], record["label_by_hand"]) == ("wants power", True)
    run("features", "label", 3, "", *own.dictionary_option)
    record = json.loads(run("features", "show", 3, *own.dictionary_option, "--json").stdout)
    assert record["label_by_hand"] is False
    assert record["label"] != "wants power"


def test_automatic_labels_are_made_again_from_what_describe_kept(tmp_path):
    own = write_small_pair(tmp_path)
    described(*own.options, "--data", own.corpus, "--tokens", "1000", "--length", "64")
    file = own.dictionary / "labels.json"
    first = json.loads(file.read_text())
    said = run("features", "label", "--auto", *own.dictionary_option).stdout
    assert json.loads(file.read_text()) == first
    assert (
        "labels: none could be tried" in said
    )  # the corpus is one document, so nothing is left to try them on
    (own.dictionary / "firings.jsonl.xz").unlink()
    run("features", "label", "--auto", *own.dictionary_option)  # the cards alone give labels too
    assert set(json.loads(file.read_text())["auto"]) == set(first["auto"])


def test_show_tells_how_well_the_label_predicts(tmp_path):
    own = write_small_pair(tmp_path)
    described(*own.options, "--data", own.corpus, "--tokens", "1000", "--length", "64")
    found = labels.load(own.dictionary, load_dictionary(own.dictionary).digest)
    score = labels.LabelScore(0.5, None, 0.5, 6, 0, 12, 0, 0.001)
    labels.save(own.dictionary, found.with_auto({1: "unclear"}, {1: score}, {1: "“rain”"}))
    record = json.loads(run("features", "show", 1, *own.dictionary_option, "--json").stdout)
    assert (record["label_score"]["auroc"], record["label_tried"]) == (0.5, "“rain”")
    text = " ".join(run("features", "show", 1, *own.dictionary_option).stdout.split())
    assert (
        "unclear (automatic label: tried “rain”: AUROC 0.50 on 18 other places; it holds at 0 of 6 where"
        in text
    )
    record = json.loads(run("features", "show", 2, *own.dictionary_option, "--json").stdout)
    assert (record["label_score"], record["label_tried"]) == (None, None)


@pytest.mark.slow
def test_map_writes_a_picture(pair, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "map.png"
    run("features", "map", 5, "--out", out, "--size", 40, *pair.dictionary_option)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert out.stat().st_size > 20_000


def test_cards_of_another_dictionary_are_refused(pair, bare):
    for name in ("cards.jsonl.xz",):
        (bare.dictionary / name).write_bytes((pair.dictionary / name).read_bytes())
    config = bare.dictionary / "cfg.json"
    config.write_text(config.read_text().replace("small", "other"))
    assert "another dictionary" in run("features", "show", 1, *bare.dictionary_option, code=2).stderr
    (bare.dictionary / "cards.jsonl.xz").unlink()


def test_tokens_of_a_context_are_shaded_by_their_level():
    context = Context(2.5, 1, ("a", " b\n", "\x1b"), (0, 100, 10))
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    line = shaded(context, painter_for(console))
    assert line.plain.startswith("a b")
    assert "\x1b" not in line.plain
    styled = {line.plain[span.start : span.end].strip() for span in line.spans if "on " in str(span.style)}
    assert any("b" in part for part in styled)
    assert "a" not in styled
    plain = Console(width=80, file=io.StringIO(), color_system=None)
    assert "b" in shaded(context, painter_for(plain)).plain
