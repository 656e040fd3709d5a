"""What a pair reads, against plain loops, and attributions against finite differences."""

from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.residual_signals import sinks
from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.errors import InputError, NotFound
from monitor.lab.pair import open_pair
from monitor.lab.policies import load_set, running_of
from monitor.lab.readings import PairReader, later_layer, read
from monitor.model.engine.requests import Finished, GenerationRequest, Released
from monitor.model.runtime import Runtime
from monitor.records import Phase, Sampling, WatchPlan
from tests.model.tiny import Recorder

POLICIES = Path(__file__).parents[2] / "policies"
WIDTH, FEATURES, WORDS = 6, 15, 20


class Harvester:
    """A causal toy: the residual at t is a mix of the embeddings up to t; logits read it after a bend."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(WORDS, WIDTH, generator=generator)
        self.mix = torch.randn(WIDTH, WIDTH, generator=generator)
        self.head = torch.randn(WIDTH, WORDS, generator=generator)

    def residuals(self, ids, lengths=None):
        return self.embedding[ids].cumsum(1) / 2

    def logits(self, ids, replace=None, lengths=None):
        x = self.residuals(ids)
        x = x if replace is None else replace(x)
        return torch.tanh(x.cumsum(1) @ self.mix / 3) @ self.head


@dataclass
class Pair:
    loaded: SimpleNamespace
    dictionary: SimpleNamespace
    harvester: Harvester

    def ids(self, text):
        return [0, *(int(word) for word in text.split())]

    def residuals(self, ids, lengths=None):
        return self.harvester.residuals(ids)

    def sinks(self, residuals):
        positions = torch.arange(residuals.shape[-2]).expand(residuals.shape[:-1])
        return sinks(residuals, positions, 1e6)


@pytest.fixture
def reader():
    generator = torch.Generator().manual_seed(1)
    sae = SparseAutoencoder(
        activation=Activation.JUMPRELU,
        encoder=torch.randn(FEATURES, WIDTH, generator=generator),
        encoder_bias=torch.randn(FEATURES, generator=generator),
        decoder=torch.randn(FEATURES, WIDTH, generator=generator),
        decoder_bias=torch.zeros(WIDTH),
        threshold=torch.full((FEATURES,), 0.3),
    )
    maximum = torch.linspace(0, 7, FEATURES)
    statistics = FeatureStatistics(maximum=maximum, density=torch.full((FEATURES,), 0.1), tokens=100)
    dictionary = SimpleNamespace(autoencoder=sae, statistics=statistics)
    text = SimpleNamespace(special_ids=frozenset({19}))
    loaded = SimpleNamespace(device=torch.device("cpu"), text=text, context=1000)
    return PairReader(Pair(loaded, dictionary, Harvester()))


TEXTS = ["3 4 5 6 7", "1", "9 9 2 3 4 5 6 11 12", "", "14 2"]


def test_readings_are_activations_in_units_of_the_maximum(reader):
    read = reader.read(TEXTS)
    sae = reader.pair.dictionary.autoencoder.to(dtype=torch.float64)
    unit = reader.maxima
    assert unit[0] == 0
    for i, text in enumerate(TEXTS):
        x = reader.pair.residuals(torch.tensor([reader.ids(text)]))[0].double()
        expected = sae.encode(x).numpy()
        expected = np.divide(expected, unit, out=np.zeros_like(expected), where=unit > 0)
        np.testing.assert_allclose(read.tokens.of(i).toarray(), expected[1:], rtol=1e-5, atol=1e-6)
        alone = reader.readings(reader.ids(text), [14, 3, 0])
        np.testing.assert_allclose(alone, expected[:, [14, 3, 0]], rtol=1e-5, atol=1e-6)
        mean = x[1:].mean(0).numpy() if len(x) > 1 else np.zeros(WIDTH)
        np.testing.assert_allclose(read.means[i], mean, rtol=1e-5, atol=1e-6)


def test_attribution_is_the_slope_of_the_log_probability(reader):
    """Scaling feature i by (1 + e) everywhere in a text moves log p by e times attribution times tokens."""
    sae, harvester = reader.pair.dictionary.autoencoder, reader.pair.harvester
    found = reader.attribution(["3 4 5 6 7 8", "9 9 2"])
    expected = np.zeros(FEATURES)
    for text in ("3 4 5 6 7 8", "9 9 2"):
        ids = torch.tensor([reader.ids(text)])
        active = sae.encode(harvester.residuals(ids))
        for i in range(FEATURES):

            def log_p(e, i=i, active=active, ids=ids):
                push = e * active[0, :, i].double()
                push[0] = 0
                moved = harvester.residuals(ids).double() + push[None, :, None] * sae.decoder[i].double()
                logits = torch.tanh(moved.cumsum(1) @ harvester.mix.double() / 3) @ harvester.head.double()
                chosen = torch.log_softmax(logits[:, :-1], -1).gather(-1, ids[:, 1:, None])
                return float(chosen.sum())

            expected[i] += (log_p(1e-4) - log_p(-1e-4)) / 2e-4 / (ids.shape[1] - 1) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def bundled():
    return open_pair(device="cpu")


def test_read_gives_each_text_its_tokens_and_readings(bundled):
    texts = ["I want more power.", "", "The train leaves at noon."]
    found = read(bundled, texts, features=[5, 853, 4069])
    assert found.columns == (5, 853, 4069)
    assert found.starts.tolist() == [0, *np.cumsum([len(tokens) for tokens in found.tokens])]
    assert [("".join(tokens)).strip() for tokens in found.tokens] == texts
    reader = PairReader(bundled)
    for i, text in enumerate(texts):
        expected = reader.readings(reader.ids(text), [5, 853, 4069])[1:]
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-5)
    assert found.maximum.shape == found.mean.shape == (3, 3)
    assert np.isnan(found.maximum[1]).all(), "a text without tokens has no highest reading"
    np.testing.assert_allclose(found.maximum[2], found[2].max(axis=0))
    np.testing.assert_allclose(found[-1], found[2])
    with pytest.raises(IndexError):
        found[3]
    assert repr(found).startswith("PairReadings(3 texts, ")
    assert "0: ' I want more power.'" in repr(found) or "0: 'I want more power.'" in repr(found)


@pytest.mark.slow
def test_read_takes_what_policies_watch(bundled):
    found = read(bundled, ["I want more power."], policies=POLICIES)
    watch = load_set(POLICIES, running_of(bundled)).watch
    assert found.columns[: len(watch.features)] == watch.features
    reader = PairReader(bundled)
    np.testing.assert_allclose(
        found[0], reader.watched(reader.ids("I want more power."), watch)[1][1:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("texts", "asked", "said"),
    [
        (["a"], {}, "say what to read"),
        (["a"], {"features": [1], "policies": "policies"}, "not both"),
        (["a"], {"features": []}, "at least one feature"),
        (["a"], {"features": [3, 3]}, "each once"),
        ("a", {"features": [3]}, "give a list of texts"),
        ([], {"features": [3]}, "give a list of texts"),
    ],
)
def test_what_read_cannot_do_is_said(bundled, texts, asked, said):
    with pytest.raises(InputError, match=said):
        read(bundled, texts, **asked)


def test_a_feature_that_is_not_there_is_named(bundled):
    with pytest.raises(NotFound, match="feature 999999 does not exist"):
        read(bundled, ["a"], features=[999999])


@pytest.mark.parametrize(("tapped", "last", "later"), [(3, 7, 5), (4, 7, 6), (6, 7, 7), (7, 7, None)])
def test_the_later_layer_is_half_way_to_the_last(tapped, last, later):
    assert later_layer(tapped, last) == later


def test_a_prompt_and_its_response_are_told_apart_though_sinks_are_left_out(reader, monkeypatch):
    monkeypatch.setattr(reader.pair, "sinks", lambda residual: torch.arange(len(residual)) == 2)
    plan, prompt, response = WatchPlan((1, 2)), [0, 3, 4, 5], [6, 7]
    asked, said = reader.watched_parts(prompt, response, plan)
    ids, whole = reader.watched([*prompt, *response], plan)
    assert ids == [0, 3, 5, 6, 7]
    assert (asked.shape, said.shape) == ((3, 2), (2, 2))
    np.testing.assert_array_equal(np.concatenate([asked, said]), whole)


def test_control_tokens_are_left_out_as_rules_pass_over_them(reader):
    read, plain = reader.read(["3 19 5 19", "3 4"]), reader.read(["3 4"])
    assert read.lengths.tolist() == [2, 2]
    np.testing.assert_array_equal(read.positions, [1, 3, 1, 2])
    np.testing.assert_array_equal(read.tokens.of(1).toarray(), plain.tokens.of(0).toarray())


def test_what_a_feature_adds_to_a_direction(reader):
    sae, direction = reader.pair.dictionary.autoencoder, np.random.default_rng(0).normal(size=WIDTH)
    active = torch.zeros(2, FEATURES)
    active[1, 7] = float(reader.maxima[7])
    empty, one = sae.decode(active, torch.zeros(2, WIDTH)).double().numpy() @ direction
    assert reader.reach(direction)[7] == pytest.approx(one - empty, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["What do you want most of all?", "Tell me about the sea."])
def test_a_fit_reads_of_a_conversation_what_the_server_reads(bundled, asked):
    reader = PairReader(bundled)
    question = ({"role": "user", "content": asked},)
    features = tuple(int(i) for i in np.flatnonzero(reader.read([question]).tokens.density() > 0.1)[:40])
    said, rows = served(bundled, question, features)
    answer = (*question, {"role": "assistant", "content": said})
    read = reader.read([question, answer])
    for text, phase in enumerate((Phase.PROMPT, Phase.RESPONSE)):
        found = read.tokens.of(text)[:, list(features)].toarray()
        assert len(found) > 3
        np.testing.assert_allclose(found, rows[phase][: len(found)], rtol=1e-3, atol=1e-4)
    assert len(read.tokens.of(0).toarray()) == len(rows[Phase.PROMPT])


def served(pair, turns, features):
    """What the server answers, and by phase the readings of the tokens that rules judge."""
    runtime, seen, ended, said = Runtime(pair.loaded_pair, WatchPlan(features)), Recorder(), Event(), []

    def heard(events):
        said.extend(event.text for _, event in events if isinstance(event, Released))
        if isinstance(events[-1][1], Finished):
            ended.set()

    runtime.start()
    try:
        ids = runtime.tokenise(turns, truncate=False, room=8, reply=True).ids
        runtime.engine.submit(GenerationRequest("g", ids, Sampling(max_new_tokens=8), seen, seen, ()), heard)
        assert ended.wait(60)
    finally:
        runtime.stop(5)
    rows = {Phase.PROMPT: [], Phase.RESPONSE: []}
    for block in seen.blocks:
        for at, (token, row) in enumerate(zip(block.token_ids, block.readings, strict=True), block.start):
            if at and token not in runtime.special_ids:
                rows[block.phase].append(row)
    return "".join(said).strip(), rows
