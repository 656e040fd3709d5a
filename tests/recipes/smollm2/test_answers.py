"""Answers that are generated in large batches, against transformers' own generation of each alone."""

import pytest
import torch

from monitor.model.chat_template import ChatTemplate
from monitor.model.load.model import LoadedModel, load_model
from monitor.recipes.smollm2 import answers as module
from monitor.recipes.smollm2.answers import GivenAnswer, Pace, SamplingPlan, answers
from monitor.recipes.smollm2.conversations import assistant, user
from monitor.recipes.smollm2.questions import Question
from tests.recipes.smollm2.small import write_chat_model


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_chat_model(tmp_path_factory.mktemp("model")), device="cpu")


def _questions(count: int) -> list[Question]:
    talk = (user("a" * 9), assistant("b" * 5))
    return [
        Question("topics", n, (*(talk if n % 3 == 0 else ()), user("hello " * (1 + n % 4) + str(n))))
        for n in range(count)
    ]


def _said(loaded: LoadedModel, plan: SamplingPlan, count: int = 9) -> dict[int, GivenAnswer]:
    counted: list[int] = []
    found = {a.question.number: a for a in answers(loaded, _questions(count), plan, counted.append)}
    assert sum(counted) == sum(answer.tokens for answer in found.values())
    assert sorted(found) == list(range(count))
    return found


def _alone(loaded: LoadedModel, question: Question, new: int) -> tuple[str, bool]:
    ids = torch.tensor([ChatTemplate(loaded.tokenizer, loaded.text)(question.turns, reply=True).ids])
    out = loaded.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=0
    )[0, ids.shape[1] :]
    text = loaded.tokenizer.decode(out, skip_special_tokens=True).strip()
    return text, bool((out == 0).any())


@pytest.mark.parametrize("share_opening", [False, True])
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_the_likeliest_tokens_are_those_of_each_question_alone(
    loaded: LoadedModel, batch: int, share_opening: bool
) -> None:
    loaded.model.generation_config.eos_token_id = 0
    found = _said(loaded, SamplingPlan(top_k=1, longest=24, batch=batch, share_opening=share_opening))
    for question in _questions(9):
        answer = found[question.number]
        assert (answer.text, answer.finished) == _alone(loaded, question, 24)


def test_what_all_prompts_open_with_is_shared_and_never_a_whole_prompt() -> None:
    assert module._opening([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3, 9, 9]]) == 2
    assert module._opening([[1, 2, 3], [1, 2, 3, 4]]) == 2
    assert module._opening([[1, 2, 3], [1, 2, 3]]) == 2
    assert module._opening([[1, 2], [3, 4]]) == 0
    assert module._opening([[7]]) == 0


def test_ended_answers_leave_the_batch_and_the_others_go_on(loaded: LoadedModel) -> None:
    """The end-of-text token is made one that some answers say early and others never."""
    plain = _said(loaded, SamplingPlan(top_k=1, longest=24, batch=16))
    assert not any(answer.finished for answer in plain.values())
    spoken = [list(loaded.tokenizer(answer.text).input_ids) for answer in plain.values()]
    end = next(i for i in range(1, 257) if 0 < sum(i in ids for ids in spoken) < len(spoken))
    loaded.model.generation_config.eos_token_id = end
    try:
        found = _said(loaded, SamplingPlan(top_k=1, longest=24, batch=16))
    finally:
        loaded.model.generation_config.eos_token_id = 0
    assert 0 < sum(answer.finished for answer in found.values()) < len(found)
    for number, answer in found.items():
        assert plain[number].text.startswith(answer.text[:-1])
        if not answer.finished:
            assert answer.text == plain[number].text


def test_a_seed_repeats_its_answers_and_another_gives_others(loaded: LoadedModel) -> None:
    plan = SamplingPlan(longest=12, batch=4)
    texts = [
        {n: a.text for n, a in _said(loaded, p).items()}
        for p in (plan, plan, SamplingPlan(longest=12, batch=4, seed=9))
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_the_models_own_attention_is_back_afterwards(loaded: LoadedModel) -> None:
    _said(loaded, SamplingPlan(longest=2), count=2)
    assert loaded.model.config._attn_implementation == "sdpa"


def test_a_line_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    pace = Pace(lines.append, every=60)
    now[0] = 30.0
    pace.add(3000)
    assert not lines
    pace.done = 0.25
    now[0] = 60.0
    pace.add(3000)
    assert lines == ["     6,000 tokens, 100 a second, about 3 min left"]
    now[0] = 100.0
    pace.add(1)
    assert len(lines) == 1
    assert pace.tokens == 6001
