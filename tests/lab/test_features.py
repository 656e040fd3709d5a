"""Looking at features with texts, on the bundled pair and against plain computations."""

import pytest
import torch

from monitor.errors import InputError, NotFound
from monitor.lab.features import PromptEffects, contrast_texts, nearest_features, search_texts
from monitor.lab.pair import need_statistics

PROMPT = "I want more power"


def test_neighbours_are_those_of_the_decoder(opened):
    decoder = torch.nn.functional.normalize(opened.dictionary.autoencoder.decoder.double(), dim=-1)
    cosines = decoder @ decoder[7]
    cosines[7] = -2
    found = nearest_features(opened.dictionary, 7, 5)
    assert [feature for feature, _ in found] == cosines.topk(5).indices.tolist()
    assert [cosine for _, cosine in found] == pytest.approx(cosines.topk(5).values.tolist(), abs=1e-5)
    with pytest.raises(NotFound):
        nearest_features(opened.dictionary, 10**6, 5)


def test_a_contrast_finds_what_fires_on_one_side(opened):
    told = []
    yes = [f"I want to gain more power over {i} people" for i in range(4)]
    no = [f"The {i}th train to the coast leaves at noon" for i in range(4)]
    found = contrast_texts(opened, [*yes, *no], [True] * 4 + [False] * 4, progress=told.append)
    assert sum(told) == 8
    assert found[0].auroc == max(one.auroc for one in found) > 0.9
    turned = contrast_texts(opened, [*yes, *no], [False] * 4 + [True] * 4)
    assert turned[0].feature != found[0].feature
    with pytest.raises(
        InputError, match="1 positive and 2 negative texts; a contrast needs two of each side"
    ):
        contrast_texts(opened, ["a b", "c d", "e f"], [True, False, False])


def test_a_search_says_where_each_text_fires_most(opened):
    texts = ["more power for me", "they want power too"]
    found = search_texts(opened, texts, 3)
    assert 1 <= len(found) <= 3
    for one in found:
        for text, peak in zip(texts, one.peaks, strict=True):
            assert peak is None or peak.strip() in text
    with pytest.raises(InputError, match="a text is empty"):
        search_texts(opened, ["a", "  "], 3)


@pytest.fixture(scope="module")
def effects(opened):
    return PromptEffects(opened, PROMPT)


def test_the_likeliest_token_is_explained_unless_another_is_named(opened, effects):
    ids = torch.tensor([opened.ids(PROMPT)])
    with torch.no_grad():
        chances = opened.loaded.model(ids).logits[0, -1].float().softmax(-1)
    assert effects.token == opened.loaded.tokenizer.decode([int(chances.argmax())])
    assert effects.probability == pytest.approx(float(chances.max()), abs=1e-4)
    other = int(chances.topk(5).indices[4])
    named = PromptEffects(opened, PROMPT, opened.loaded.tokenizer.decode([other]))
    assert named.probability == pytest.approx(float(chances[other]), abs=1e-4)
    with pytest.raises(InputError, match=r"--token 'several words here' is . tokens; write one"):
        PromptEffects(opened, PROMPT, "several words here")


def test_the_ranking_begins_with_what_matters_most(effects):
    ranking = effects.ranking(4)
    sizes = [abs(row.effect.attribution) for row in ranking]
    assert sizes == sorted(sizes, reverse=True)
    assert all(row.effect.text == effects.token for row in ranking)
    assert all(row.at.strip() in PROMPT for row in ranking)


def test_one_feature_at_every_token_where_it_is_active(opened, effects):
    feature = effects.ranking(1)[0].feature
    found = effects.of(feature, 3)
    (ids,) = opened.all_ids([PROMPT], "prompt")
    acts = opened.dictionary.autoencoder.encode(opened.residuals(torch.tensor([ids]))[0])[:, feature]
    maximum = float(need_statistics(opened.dictionary).maximum[feature])
    assert [one.position for one in found.positions] == (acts > 0).nonzero()[:, 0].tolist()
    assert [one.reading for one in found.positions] == pytest.approx(
        (acts[acts > 0] / maximum).tolist(), rel=1e-3
    )
    assert len(found.raised) == len(found.lowered) == 3
    assert found.raised[0].ablation == max(one.ablation for one in found.raised)
    assert found.lowered[0].ablation == min(one.ablation for one in found.lowered)
    assert found.explained.text == effects.token
    silent = _silent(opened, ids)
    with pytest.raises(InputError, match=f"feature {silent} is active on no token of this prompt"):
        effects.of(silent, 3)


def _silent(opened, ids):
    """A feature that is active on no token."""
    acts = opened.dictionary.autoencoder.encode(opened.residuals(torch.tensor([ids]))[0])
    return int((acts.amax(0) == 0).nonzero()[0, 0])
