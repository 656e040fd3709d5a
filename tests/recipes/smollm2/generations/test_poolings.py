"""What is counted of requests: those above all but so many benign prompts of their own length."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from monitor.policy.files.benign import BenignText
from monitor.policy.files.occurrences import Document
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import TextReadings, TokenReadings
from monitor.policy.fit.rows import FitRows
from monitor.policy.schema.pooling import Ema, TopKMean
from monitor.recipes.smollm2.generations import poolings
from monitor.recipes.smollm2.generations.catalogue import DANGEROUS
from monitor.recipes.smollm2.generations.poolings import (
    BEHIND_BENIGN,
    EDGES,
    FEWEST,
    RATES,
    FoundRequests,
    PromptSet,
    compared,
    poolings_table,
)
from tests.recipes.smollm2.generations.test_detection import texts

WIDTH = 5


class WordReader:
    """Reads a token a word. A residual is noise; its second entry is high at the words of a theft."""

    takes_turns = True

    def read(self, documents: list[Document]) -> TextReadings:
        random = np.random.default_rng(len(documents))
        words = [document[-1]["content"].split() for document in documents]
        starts = np.concatenate([[0], np.cumsum([len(one) for one in words])]).astype(np.intp)
        residuals = random.normal(size=(int(starts[-1]), WIDTH)).astype(np.float32)
        residuals[:, 1] += [4.0 * (word == "steal") for one in words for word in one]
        return TextReadings(TokenReadings(sparse.csr_matrix((len(residuals), 3)), starts), residuals)


def learnt() -> FitRows:
    """Rows whose positives have a high second entry at every token."""
    own = texts("own", np.tile([1, 0], 30), 0, strength=1)
    count = len(own.texts)
    ones, none = np.ones(count, np.intp), np.zeros(count, np.intp)
    groups = np.arange(count, dtype=np.intp)
    return FitRows(own.texts, own.read, own.positive, groups, ones, ones, none, np.ones(count))


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> PromptSet:
    monkeypatch.setattr(poolings, "SIZES", ((10, 60, 500), (300, 400, 300)))
    benign = [BenignText("prose", f"{n} " + "the road is long " * 30, group=str(n)) for n in range(600)]
    requests = [f"steal steal steal steal number {n}" for n in range(30)]
    harmless = [f"paint paint paint paint number {n}" for n in range(30)]
    return PromptSet(WordReader(), requests, {"harmless": harmless, "few": harmless[: FEWEST - 1]}, benign)


def test_requests_above_the_benign_prompts_are_found_and_others_not(prompts: PromptSet) -> None:
    found = {
        (one.source, one.longer_than): one
        for one in prompts.found("top", RulePooling(TopKMean(k=3)), learnt(), 0)
    }
    assert set(found) == {("the test", 0), ("harmless", 0), (BEHIND_BENIGN, EDGES[0])}
    assert found["the test", 0].found == dict.fromkeys(RATES, 1.0)
    assert found["harmless", 0].found[RATES[1]] < 0.2
    assert found["the test", 0].requests == 30
    assert 200 < found["the test", 0].benign < 500


def test_behind_a_long_text_the_strongest_tokens_find_more_than_a_slow_average(prompts: PromptSet) -> None:
    share = {}
    for name, how in {"top": TopKMean(k=3), "slow": Ema(half_life=200)}.items():
        (one,) = (
            one for one in prompts.found(name, RulePooling(how), learnt(), 0) if one.source == BEHIND_BENIGN
        )
        share[name] = one.found[RATES[1]]
    assert share["top"] > share["slow"]


def test_a_table_has_a_column_for_each_pooling() -> None:
    one = FoundRequests("ema:12", "the test", 0, 40, 627, {0.0025: 0.28, 0.01: 0.75})
    more = [one, replace(one, pooling="max"), replace(one, longer_than=128)]
    assert poolings_table(more[:2]).splitlines() == [
        "| requests | tokens | requests / benign | ema:12 | max |",
        "|---|---|---|---|---|",
        "| the test | 1–48 | 40 / 627 | 28% / 75% | 28% / 75% |",
    ]
    assert "| > 128 |" in poolings_table(more[2:])


def test_every_pooling_is_tried_without_and_with_the_further_examples(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(poolings, "SIZES", ((10, 60, 500), (300, 400, 300)))
    monkeypatch.setattr(poolings, "taught_with", lambda meter, source, said: (learnt(), learnt()))
    monkeypatch.setattr(poolings, "other_requests", lambda source, data: {})
    policy = SimpleNamespace(model=SimpleNamespace(metadata=SimpleNamespace(name="dangerous-requests")))
    other = SimpleNamespace(model=SimpleNamespace(metadata=SimpleNamespace(name="scams")))
    meter = SimpleNamespace(policies=[other, policy], reader=WordReader())
    benign = [BenignText("prose", f"{n} " + "the road is long " * 30, group=str(n)) for n in range(600)]
    found = list(compared(meter, tmp_path, None, benign, ("max", "ema:6"), 0))
    names = list(dict.fromkeys(one.pooling for one in found))
    assert names == ["max", "ema:6", "max, extended", "ema:6, extended"]
    assert {one.source for one in found} >= {"the test", BEHIND_BENIGN}
    (asked,) = {one.requests for one in found if (one.source, one.longer_than) == ("the test", 0)}
    assert asked == len(DANGEROUS.questions)
