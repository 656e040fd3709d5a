"""Rechecks of the bundled pair: as it is, in another number type, with scaled weights, with a destroyed dictionary."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from monitor.errors import InputError, NotFound, PolicyError
from monitor.lab.bound_locks import bindings
from monitor.lab.pair import Pair, open_pair
from monitor.lab.policies import load_set, running_of
from monitor.lab.recheck.policies import PairChange, PairScores, PolicyRecheck, Recheck, Rechecker, worst
from monitor.lab.recheck.rules import RecheckVerdict
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockModel
from monitor.rpc.assembly import bundled_policies

pytestmark = pytest.mark.slow
NAME = "power-seeking"
FEATURED = "deception"
"""A policy whose detector reads features."""
HOLDS, STALE, DEGRADED, INCONCLUSIVE = (
    RecheckVerdict.HOLDS,
    RecheckVerdict.STALE,
    RecheckVerdict.DEGRADED,
    RecheckVerdict.INCONCLUSIVE,
)


def silent(_: str) -> None:
    """Tell nobody."""


def scaled(pair: Pair, by: float) -> Pair:
    """Weights up to the tapped layer scaled so that its residual stream is `by` times as large, and nothing else."""
    with torch.no_grad():
        pair.loaded.model.get_input_embeddings().weight.mul_(by)
        for layer in pair.loaded.layers[: pair.harvester.layer + 1]:
            layer.self_attn.o_proj.weight.mul_(by)
            layer.mlp.down_proj.weight.mul_(by)
    return pair


def shuffled(pair: Pair) -> Pair:
    """Every token is embedded as another one is, so that neither features nor probes find what they learnt."""
    embedded = pair.loaded.model.get_input_embeddings().weight
    order = torch.randperm(len(embedded), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedded.copy_(embedded[order].clone())
    return pair


def noisy(pair: Pair) -> Pair:
    """All weights changed by one part in two hundred, as a careful quantisation does."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in pair.loaded.model.parameters():
            weights.add_(0.005 * weights.std() * torch.randn(weights.shape, generator=generator))
    return pair


def shelved(folder: Path, name: str) -> Path:
    """One shipped policy with its lock for the pair `tiny`, and the shipped benign texts."""
    source = bundled_policies()
    for path in (*source.glob(f"{name}.*"), *source.glob(f"locks/tiny/{name}.*"), source / "benign.jsonl"):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


@pytest.fixture(scope="module")
def pair() -> Pair:
    return open_pair(device="cpu")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shipped policy, with the shipped benign texts."""
    return shelved(tmp_path_factory.mktemp("policies"), NAME)


@pytest.fixture(scope="module")
def base(shelf: Path, pair: Pair) -> PairScores:
    """What the bundled pair scores, recorded in the lock."""
    rechecker = Rechecker(shelf)
    scores = rechecker.scores(pair, silent)
    assert rechecker.record(pair, scores)
    return scores


@pytest.fixture
def folder(shelf: Path, base: PairScores, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shelf, tmp_path / "policies"))


def rechecked(folder: Path, pair: Pair) -> Recheck:
    rechecker = Rechecker(folder)
    return rechecker.compare(pair, rechecker.scores(pair, silent))


def only(found: Recheck) -> PolicyRecheck:
    [one] = found.policies
    return one


def lock(folder: Path) -> LockModel:
    [source] = read_folder(folder, "tiny")
    assert source.lock is not None
    return source.lock


def test_the_pair_itself_holds(folder: Path, pair: Pair, base: PairScores) -> None:
    found = Rechecker(folder).compare(pair, base)
    one = only(found)
    assert (found.verdict, one.differs, one.problems) == (HOLDS, (), ())
    changes = [check.change.value for rule in one.rules for check in rule.checks if check.change]
    assert changes == pytest.approx([0.0] * 6, abs=1e-6)
    assert dict(one.more) == {}


@pytest.mark.parametrize(
    "changed", [lambda: open_pair(device="cpu", dtype="bfloat16"), lambda: noisy(open_pair(device="cpu"))]
)
def test_what_hardly_changes_holds(folder: Path, changed: Callable[[], Pair]) -> None:
    found = rechecked(folder, changed())
    assert found.verdict is HOLDS
    if found.dtype == "bfloat16":
        assert only(found).differs == (PairChange("dtype", "float32", "bfloat16"),)


def test_scaled_weights_are_stale_and_new_thresholds_mend_that(
    folder: Path, pair: Pair, base: PairScores
) -> None:
    other = scaled(open_pair(device="cpu"), 1.2)
    rechecker = Rechecker(folder)
    scores = rechecker.scores(other, silent)
    found = rechecker.compare(other, scores)
    [rule] = only(found).rules
    assert (found.verdict, rule.check("auroc").found) == (STALE, "same")
    assert rule.check("score_shift").change.low > 0.15
    assert all(new > 1.1 * old for (_, old), (_, new) in zip(rule.thresholds, rule.proposed, strict=True))
    before = rule.check("caught")
    assert before.now.value > before.then + 0.1
    assert rule.after[1].now.value == pytest.approx(before.then, abs=0.05)

    then = lock(folder)
    written = only(rechecker.write(other, found, scores)).written
    assert Path(written).exists()
    now = lock(folder)
    assert now.rules[rule.name].threshold != then.rules[rule.name].threshold
    assert (now.rules[rule.name].benign_rate, now.card) == (then.rules[rule.name].benign_rate, then.card)
    again = Rechecker(folder)
    assert again.compare(other, scores).verdict is HOLDS
    # Lowered thresholds fire more; whether recall holds too cannot be told from so few texts.
    assert again.compare(pair, base).verdict in (STALE, INCONCLUSIVE)


def test_a_destroyed_direction_is_degraded_and_stays_as_it_is(folder: Path) -> None:
    other = shuffled(open_pair(device="cpu"))
    rechecker = Rechecker(folder)
    scores = rechecker.scores(other, silent)
    found = rechecker.compare(other, scores)
    assert found.verdict is DEGRADED
    assert only(found).rules[0].proposed is None
    before = lock(folder)
    assert only(rechecker.write(other, found, scores)).written == ""
    assert lock(folder) == before


def test_few_texts_are_inconclusive_and_say_how_many_more(folder: Path, pair: Pair) -> None:
    benign = (folder / "benign.jsonl").read_text().splitlines()
    (folder / "benign.jsonl").write_text("\n".join(benign[:60]))
    one = only(rechecked(folder, pair))
    assert one.verdict is INCONCLUSIVE
    assert one.more["benign"] >= 40
    further = folder / "more.jsonl"
    further.write_text("\n".join(json.dumps({"text": json.loads(line)["text"]}) for line in benign[60:]))
    rechecker = Rechecker(folder, benign=[further])
    scores = rechecker.scores(pair, silent)
    assert len(rechecker.further) > 90
    again = rechecker.compare(pair, scores, against=scores)
    assert only(again).rules[0].check("false_positives").texts > 150


def test_the_pair_that_was_fitted_may_stand_in_for_the_record(
    folder: Path, pair: Pair, base: PairScores
) -> None:
    path = next(folder.rglob("*.lock.yaml"))
    text = path.read_text()
    path.write_text(text[: text.index("\nreference:")] + "\n")
    rechecker = Rechecker(folder)
    alone = only(rechecker.compare(pair, base))
    assert not alone.rules[0].paired
    assert any("records no scores" in note for note in alone.notes)
    beside = rechecker.compare(pair, base, against=base)
    assert only(beside).rules[0].paired
    assert beside.verdict is HOLDS
    assert "float32" in beside.compared


def test_another_digest_does_not_matter_and_is_said_and_written(
    folder: Path, pair: Pair, base: PairScores
) -> None:
    path, other = next(folder.rglob("*.lock.yaml")), "sha256:" + "5" * 64
    path.write_text(path.read_text().replace(pair.loaded.digest, other))
    with pytest.raises(PolicyError, match="is of another model"):
        load_set(folder, running_of(pair))
    rechecker = Rechecker(folder)
    found = rechecker.compare(pair, base)
    assert only(found).differs == (PairChange("model", other, pair.loaded.digest),)
    assert found.verdict is HOLDS
    assert rechecker.record(pair, base) == [], "it is not the pair that the lock was fitted to"
    held = lock(folder).reference
    rechecker.write(pair, found, base)
    assert not bindings(pair, folder)[0].differs
    assert lock(folder).reference == held, "what it was fitted to stays what it is compared with"


def test_changed_maxima_are_a_difference_of_the_pair(tmp_path: Path, pair: Pair) -> None:
    folder = shelved(tmp_path, FEATURED)
    scores = Rechecker(folder).scores(pair, silent)
    Rechecker(folder).record(pair, scores)
    path = next(folder.rglob("*.lock.yaml"))
    first = lock(folder).features[0].maximum
    path.write_text(path.read_text().replace(f"maximum: {first}", f"maximum: {first / 2:.5g}", 1))
    one = only(Rechecker(folder).compare(pair, scores))
    assert [change.part for change in one.differs] == ["maxima"]
    assert one.verdict is HOLDS


def test_what_cannot_be_scored_is_said(tmp_path: Path, pair: Pair) -> None:
    folder = shelved(tmp_path, FEATURED)
    path = next(folder.rglob("*.lock.yaml"))
    index = lock(folder).features[0].index
    path.write_text(path.read_text().replace(f"index: {index}\n", "index: 999999\n", 1))
    found = rechecked(folder, pair)
    assert found.verdict is None
    assert "feature 999999 does not exist" in only(found).problems[0]


def test_what_there_is_nothing_to_recheck_on_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no policy called envy"):
        Rechecker(folder, only=["envy"])
    (folder / "benign.jsonl").unlink()
    with pytest.raises(InputError, match="no benign text"):
        Rechecker(folder)
    next(folder.rglob("*.lock.yaml")).unlink()
    with pytest.raises(PolicyError, match="has a lock to recheck"):
        Rechecker(folder)


def test_the_worst_verdict_stands_for_all() -> None:
    assert worst([HOLDS, INCONCLUSIVE, STALE]) is STALE
    assert worst([DEGRADED, STALE]) is DEGRADED
    assert worst([]) is HOLDS
