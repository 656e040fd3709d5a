"""A budget shared over a folder of policies on the bundled pair: what is written, and that it holds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from monitor.errors import InputError, NotFound, PolicyError
from monitor.lab.budget.requests import BenignRequest
from monitor.lab.budget.scores import score_set
from monitor.lab.budget.shared_set import BudgetSettings, share_set
from monitor.lab.policies import load_set, running_of
from monitor.policy.files.benign import BenignText
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import packed, write_lock
from monitor.policy.files.set_budget import budget_notes, read_budget
from monitor.policy.fit.lengths import EDGES
from monitor.records import Mode
from tests.policy.policy_files import PINNED, write_policy

SHIPPED = Path(__file__).parents[3] / "policies"
LOCKS = Path("locks/tiny")
RATE = 0.1
NAMES = ("power-seeking", "scams", "unsafe-code-bug")
WORDS = "the river walks slowly beside old houses where people bake bread and talk about rain money power"
SETTINGS = BudgetSettings(RATE, {"scams": 2.0}, most_tokens=30_000)


def benign(first, count):
    """Sentences and dialogues about nothing that policies look for."""
    rng = np.random.default_rng(first)
    words = WORDS.split()
    for i in range(first, first + count):
        said = " ".join(rng.choice(words, int(rng.integers(5, 40))))
        asked = " ".join(rng.choice(words, int(rng.integers(4, 30))))
        turns = ({"role": "user", "content": asked}, {"role": "assistant", "content": said})
        yield (
            BenignText("prose", said, group=f"p{i}")
            if i % 2
            else BenignText("dialogue", messages=turns, group=f"d{i}")
        )


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    (folder / LOCKS).mkdir(parents=True)
    for name in NAMES:
        for path in SHIPPED.glob(f"{name}.*"):
            shutil.copy(path, folder)
        shutil.copy(SHIPPED / LOCKS / f"{name}.lock.yaml", folder / LOCKS)
    return folder


@pytest.fixture(scope="module")
def shared(opened, shipped):
    return share_set(opened, shipped, list(benign(0, 240)), SETTINGS, lambda line: None)


def test_thresholds_are_written_into_every_lock(shared, shipped, opened):
    locks = {source.model.metadata.name: source.lock for source in read_folder(shipped, "tiny")}
    for name in NAMES:
        (rule,) = locks[name].rules.values()
        before = read_folder(SHIPPED, "tiny")
        (old,) = next(s.lock for s in before if s.model.metadata.name == name).rules.values()
        assert rule.threshold != old.threshold
        assert rule.benign_texts > 240
        assert (rule.asked_rate, rule.pooling) == (old.asked_rate, old.pooling)
    assert locks["scams"].budget.weight == 2.0
    assert locks["scams"].budget.shares[0].fired <= locks["scams"].budget.shares[0].set <= RATE
    load_set(shipped, running_of(opened))  # and they load


def test_the_budget_file_says_what_the_set_costs(shared, shipped):
    budget = read_budget(shipped / LOCKS)
    assert budget == shared.budget.model_validate(json.loads((shipped / LOCKS / "budget.json").read_text()))
    assert budget.shared
    assert budget.policies["unsafe-code-bug"].enforced == [], "it is experimental, and in shadow"
    assert budget.policies["scams"].enforced == ["written"]
    assert {rate.phase for rate in budget.rates} == {"prompt", "response", "request"}
    assert set(budget.kinds) == {"dialogue", "prose"}
    for rate in budget.rates:
        assert rate.low <= rate.share <= rate.high
        if rate.texts >= budget.sufficient and rate.kind == "any":
            assert rate.share <= RATE + 1e-9
    notes = " ".join(budget_notes(budget, shared.sources))
    assert "no rate is promised for prompts of" in notes
    assert "kind code (0)" in notes
    assert "thresholds or modes are not those" not in notes


def test_it_holds_on_texts_that_set_no_threshold(shared, shipped, opened):
    policies = load_set(shipped, running_of(opened))
    fresh = [
        BenignRequest(text.kind, text.group, text.text or text.prompt, text.answer, either=bool(text.text))
        for text in benign(10_000, 120)
    ]
    scores = score_set(opened, policies, fresh, lambda line: None)
    fired = np.zeros(len(scores.lengths), bool)
    for check, i in enumerate(scores.program.simple):
        rule = scores.program.rules[i]
        if rule.enforced:
            limit = min(value for _, value in rule.lengths or ((None, rule.threshold),))
            fired |= scores.best[:, check].max(axis=1) >= limit
    assert fired.mean() < 2 * RATE


def test_rules_in_shadow_take_their_own_rate(shared, opened, shipped):
    policies = load_set(shipped, running_of(opened))
    (shadow,) = [p for p in policies.policies if p.name == "unsafe-code-bug"]
    assert shadow.rules[0].mode is Mode.SHADOW
    assert shadow.rules[0].benign_rate <= 0.02
    assert not any("unsafe-code-bug" in rate.by_policy for rate in shared.budget.rates)


def test_what_a_rule_catches_is_known_for_its_new_thresholds(opened, shipped, tmp_path):
    folder = shutil.copytree(shipped, tmp_path / "policies")
    (source,) = [one for one in read_folder(folder, "tiny") if one.path.stem == "scams"]
    held_out = np.full((4, len(EDGES) + 1), -np.inf, np.float32)
    held_out[:, 1] = [-1, 0, 50, 60]
    rule = source.lock.rules["written"].model_copy(update={"held_out": packed(held_out)})
    write_lock(source.path, source.lock.model_copy(update={"rules": {"written": rule}}), "tiny")
    found = share_set(opened, folder, list(benign(0, 60)), SETTINGS, lambda line: None)
    (lock,) = found.locks(["scams", "unknown"])
    assert lock.rules["written"].caught == 0.5
    assert lock.rules["written"].held_out == rule.held_out


def test_too_few_texts_leave_thresholds_alone_and_say_so(opened, shipped, tmp_path):
    folder = shutil.copytree(shipped, tmp_path / "policies")
    before = {source.path.name: source.lock.rules for source in read_folder(folder, "tiny")}
    found = share_set(opened, folder, list(benign(0, 12)), SETTINGS, lambda line: None)
    assert not found.budget.shared
    assert {source.path.name: source.lock.rules for source in read_folder(folder, "tiny")} == before
    assert "too few benign texts to share a budget (20 of a length" in " ".join(
        budget_notes(found.budget, found.sources)
    )


def test_what_cannot_be_shared_is_said(opened, shipped, tmp_path):
    texts = list(benign(0, 30))
    with pytest.raises(
        NotFound, match="a weight is given for envy, which is no policy here; there are power-seeking"
    ):
        share_set(opened, shipped, texts, BudgetSettings(RATE, {"envy": 2.0}), lambda line: None)
    with pytest.raises(InputError, match="none is left to set a budget on; put more into"):
        share_set(opened, shipped, [], SETTINGS, lambda line: None)
    write_policy(tmp_path, PINNED.replace("threshold: 0.8", "threshold: {false_positive_rate: 0.01}"))
    with pytest.raises(
        PolicyError, match=r"no policy of .* fits this model and dictionary: greed: .* never fitted"
    ):
        share_set(opened, tmp_path, texts, SETTINGS, lambda line: None)
