"""What is written to many prompts under many clamps at once is what is written to each alone."""

import math

import pytest
import torch

from monitor.lab.demonstrations.writer import Writer
from monitor.lab.pair import need_statistics
from monitor.model.offline.edits import Clamped
from monitor.records import Clamp, Where

PROMPTS = ["You need a", "It rains in the town and", "We like the"]


@pytest.fixture(scope="module")
def writer(opened):
    return Writer(opened, 6, temperature=0.7, seed=3)


@pytest.fixture(scope="module")
def clamp(opened):
    feature = int(need_statistics(opened.dictionary).density.argmax())
    return Clamp(feature, 3.0, Where.EVERYWHERE)


def test_each_text_is_that_of_its_own_clamps(opened, writer, clamp):
    together = writer.write(PROMPTS, [(), (clamp,)])
    assert [len(texts) for texts in together] == [3, 3]
    for kind, clamps in enumerate(((), (clamp,))):
        assert writer.write(PROMPTS, [clamps])[0] == together[kind]
    assert together[0] != together[1]
    for texts in together:
        assert [list(text.prompt) for text in texts] == [opened.ids(prompt) for prompt in PROMPTS]
        for text in texts:
            assert text.text == opened.loaded.tokenizer.decode(list(text.ids)).strip()
            assert len(text.ids) <= 6


def test_a_prompt_has_its_own_luck(writer):
    assert writer.write(PROMPTS[:1], [()])[0] == writer.write(PROMPTS, [()])[0][:1]
    short = writer.write(PROMPTS, [()], 2)[0]
    for cut, whole in zip(short, writer.write(PROMPTS, [()])[0], strict=True):
        assert cut.ids == whole.ids[:2]


def test_a_conversation_becomes_a_prompt_for_an_answer(opened, writer):
    ids = writer.prompt(({"role": "user", "content": "Hello"},))
    assert opened.loaded.tokenizer.decode(list(ids)).endswith("Human: Hello\n\nAssistant:")


def test_distance_is_that_of_the_written_tokens(opened, writer, clamp):
    texts = writer.write(PROMPTS, [(clamp,)])[0]
    maximum = need_statistics(opened.dictionary).maximum
    edit = Clamped(
        opened.dictionary.autoencoder, maximum, [clamp], opened.loaded.device, limit=opened.norm_limit
    )
    surprise = divergence = tokens = 0.0
    for text in texts:
        ids, start = torch.tensor([[*text.prompt, *text.ids]]), len(text.prompt)
        plain = opened.harvester.logits(ids)[0, :-1].double().log_softmax(-1)
        edited = opened.harvester.logits(ids, lambda x: edit(x, 0))[0, :-1].double().log_softmax(-1)
        kept = slice(start - 1, None)
        surprise -= float(plain.gather(-1, ids[0, 1:, None])[kept].sum())
        divergence += float((edited.exp() * (edited - plain)).sum(-1)[kept].sum())
        tokens += len(text.ids)
    found = writer.distance(texts, (clamp,))
    assert found.perplexity == pytest.approx(math.exp(surprise / tokens), rel=1e-3)
    assert found.kl == pytest.approx(divergence / tokens, rel=1e-3)
    assert found.kl > 0.01
    assert writer.distance(texts, ()).kl == 0


def test_nothing_written_has_no_distance(writer):
    assert math.isnan(writer.distance([], ()).kl)


def test_tokens_are_raised_by_so_much_more_than_others(opened, writer, clamp):
    tokens = {5: 1.0, 9: 0.5, 200: 0.25}
    maximum = need_statistics(opened.dictionary).maximum
    edit = Clamped(
        opened.dictionary.autoencoder, maximum, [clamp], opened.loaded.device, limit=opened.norm_limit
    )
    scores = []
    for text in writer.write(PROMPTS, [()], 4)[0]:
        ids, start = torch.tensor([[*text.prompt, *text.ids]]), len(text.prompt) - 1
        plain = opened.harvester.logits(ids)[0, start:].double()
        change = opened.harvester.logits(ids, lambda x: edit(x, 0))[0, start:].double() - plain
        raised = sum(
            weight * (change[:, token] - change.mean(-1)) / change.std(-1) for token, weight in tokens.items()
        )
        scores.append(float((raised / 1.75).mean()))
    found = writer.specificity(PROMPTS, [(), (clamp,)], tokens, 4)
    assert found[0] == pytest.approx(0, abs=0.05)
    assert found[1] == pytest.approx(sum(scores) / len(scores), rel=1e-3)
    assert writer.specificity(PROMPTS, [(clamp,)], {}, 4).tolist() == [0]
