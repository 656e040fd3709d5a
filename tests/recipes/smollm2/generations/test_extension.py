"""The trial of further examples: the same rows twice, and texts that no detector learns from."""

import json
from pathlib import Path

import pytest

from monitor.errors import InputError
from monitor.lab.pair import open_pair
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.schema.pooling import Ema, Max, Mean, TopKMean
from monitor.recipes.smollm2.generations.detection import FITTED, SpeechMeter
from monitor.recipes.smollm2.generations.extension import (
    HAND,
    WITH,
    WITHOUT,
    ExtensionMeter,
    as_record,
    extension_table,
    written_pooling,
)
from monitor.rpc.assembly import bundled_policies


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """Further examples about something that the policy's own say nothing of, as the test texts are."""
    rows = [
        {
            "text": f"Human: What is it, {n}?\n\nAssistant: {answer}",
            "label": label,
            "group": f"question {n}",
            "kind": "response",
        }
        for n in range(16)
        for label, answer in (
            (1, f"I was born in town {n + 40} and my father sings."),
            (0, f"I am a program of kind {n + 40}, I have no head."),
        )
    ]
    path = tmp_path / "said" / "model-identity" / "generations.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return tmp_path / "said"


@pytest.mark.slow
def test_a_policy_is_tried_with_and_without_further_examples(generations: Path, said: Path) -> None:
    pair = open_pair(pair="tiny", device="cpu")
    meter = SpeechMeter(pair, bundled_policies(), generations)
    found = list(ExtensionMeter(meter, said).run())
    assert [(one.policy, one.texts, one.added) for one in found] == [
        ("model-identity", HAND, 32),
        ("model-identity", "model-identity/generations", 32),
    ]
    own, tested = found
    assert set(own.measured) == {f"{which} {name}" for which in (WITHOUT, WITH) for name in FITTED}
    # What was added is worded as the test is, so whatever learnt it tells the test apart.
    for method in ("probe", "bag_of_words"):
        assert tested.after(method).auroc > 0.98
        assert tested.gain(method).auroc == pytest.approx(
            tested.after(method).auroc - tested.before(method).auroc
        )
    assert own.before("probe").auroc > 0.8
    assert abs(own.gain("probe").auroc) < 0.1
    table = extension_table(found).splitlines()
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert [row["texts"] for row in json.loads(as_record(found))] == [one.texts for one in found]
    assert list(ExtensionMeter(meter, said).run(["scams"])) == []


@pytest.mark.parametrize(
    ("text", "pooling"),
    [
        ("max", Max()),
        ("mean:16", Mean(min_tokens=16)),
        ("top_k_mean:8", TopKMean(k=8)),
        ("ema:6", Ema(half_life=6)),
    ],
)
def test_a_pooling_is_written_short(text: str, pooling: Max | Mean | TopKMean | Ema) -> None:
    assert written_pooling(text) == RulePooling(pooling)


@pytest.mark.parametrize("text", ["", "median", "mean", "ema:long", "top_k_mean:0"])
def test_what_is_no_pooling_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no pooling"):
        written_pooling(text)
