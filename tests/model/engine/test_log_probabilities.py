"""Log-probabilities of responses beside those of a plain forward pass over the whole text, in float64."""

import numpy as np
import pytest
import torch

from monitor.errors import MonitoringFailed
from monitor.model.engine.detokenizer import Telling, TextStream, Vocabulary
from monitor.model.engine.paged import Batcher, Limits
from monitor.model.engine.requests import Released
from monitor.model.engine.sampler import ChoiceCopy, Draw, Sampler
from monitor.model.engine.serial import SeparateBatcher
from monitor.records import Action, Clamp, Decision, FinishReason, Sampling, TokenBlock, TokenLogprobs, Where
from tests.model.engine.test_detokenizer import BYTES, WORDS, Passes, byte_fallback, spelled
from tests.model.running import LAYER, Call, running
from tests.model.tiny import Recorder, dictionary, loaded_model, maxima, plain_clamped, prompt, tokenizer

NEW = 10
CLAMPS = (Clamp(5, -2.0, Where.EVERYWHERE), Clamp(7, 3.0, Where.EVERYWHERE))


def told(call: Call) -> list[TokenLogprobs]:
    call.finished()
    return [one for event in call.events if isinstance(event, Released) for one in event.logprobs]


def plain(kind: str, ids: tuple[int, ...], clamps: tuple[Clamp, ...]) -> np.ndarray:
    """`[tokens, vocabulary]` log-probabilities of what follows each token."""
    loaded, sae, unit = loaded_model(kind, dtype=torch.float64), dictionary(), maxima()

    def edit(_module: object, _args: object, output: object) -> object:
        x, *rest = output if isinstance(output, tuple) else (output,)
        edited = plain_clamped(sae, x, clamps, unit)
        return (edited, *rest) if isinstance(output, tuple) else edited

    handle = loaded.layers[LAYER].register_forward_hook(edit)
    try:
        return loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
    finally:
        handle.remove()


@pytest.mark.slow
@pytest.mark.parametrize("batcher", [Batcher, SeparateBatcher])
def test_they_are_those_of_a_plain_forward_pass_whatever_runs_beside(batcher: type) -> None:
    """Prompts of mixed lengths in one batch, some clamped, some drawn by chance, some that did not ask."""
    kinds = [
        {},
        {"temperature": 0.8, "seed": 3},
        {"temperature": 1.5, "top_k": 4},
        {"temperature": 2.0, "top_p": 0.5},
    ]
    limits = Limits(running=8, batch_tokens=24)
    with running(loaded_model(), dictionary(), clampable=[5, 7], limits=limits, batcher=batcher) as run:
        calls = []
        for number in range(12):
            clamps = CLAMPS if number % 3 == 0 else ()
            asked = None if number % 4 == 3 else number % 7
            calls.append(
                (
                    run.call(prompt(number), new=NEW, clamps=clamps, logprobs=asked, **kinds[number % 4]),
                    clamps,
                    asked,
                )
            )
        found = [(call, told(call), clamps, asked) for call, clamps, asked in calls]
    for call, entries, clamps, asked in found:
        if asked is None:
            assert not entries
            continue
        ids = call.finished().ids
        first = len(call.ids)
        assert [one.position for one in entries] == list(range(first, len(ids)))
        assert [one.token_id for one in entries] == list(ids[first:])
        wanted = plain("llama", ids, clamps)
        for one in entries:
            row = wanted[one.position - 1]
            assert one.logprob == pytest.approx(row[one.token_id], abs=1e-4)
            assert len(one.likeliest) == asked
            values = [value for _, value in one.likeliest]
            assert values == pytest.approx(sorted(row)[::-1][:asked], abs=1e-4)
            assert values == pytest.approx([row[token_id] for token_id, _ in one.likeliest], abs=1e-4)


@pytest.mark.slow
def test_asking_changes_nothing_and_nothing_is_computed_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(loaded_model(), dictionary()) as run:
        asked = [run.call(prompt(n), new=NEW, logprobs=3, temperature=1.0, seed=n) for n in range(4)]
        assert all(told(call) for call in asked)
        monkeypatch.setattr(Sampler, "_tell", None)
        plainly = [run.call(prompt(n), new=NEW, temperature=1.0, seed=n) for n in range(4)]
        for one, other in zip(asked, plainly, strict=True):
            assert one.finished().ids == other.finished().ids
            assert one.text == other.text
            assert np.array_equal(one.readings, other.readings)


class Blocks(Recorder):
    """Blocks at the n-th token of the response."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at, self._seen = at, 0

    def observe(self, block: TokenBlock) -> Decision:
        super().observe(block)
        self._seen += len(block.token_ids) if block.phase.value == "response" else 0
        return Decision(action=Action.BLOCK) if self._seen >= self._at else Decision()


def test_a_pass_replays_a_captured_graph_unless_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    choose = Sampler.choose
    with running(loaded_model(), dictionary()) as run:
        monkeypatch.setattr(
            Sampler,
            "choose",
            lambda self, logits: (seen.append(run.engine.replays()), choose(self, logits))[1],
        )
        run.call(prompt(1), new=3).finished()
        plainly, seen[:] = list(seen), []
        told(run.call(prompt(1), new=3, logprobs=0))
    assert plainly == [True] * len(plainly)
    assert seen == [False] * len(seen)
    assert plainly
    assert seen


def test_of_a_blocked_answer_only_tokens_that_left_are_told() -> None:
    with running(loaded_model(), dictionary()) as run:
        call = run.call(prompt(2), new=NEW, observer=Blocks(4), logprobs=2)
        entries = told(call)
        last = call.finished()
    assert last.reason is FinishReason.POLICY
    assert [one.token_id for one in entries] == list(last.ids[len(call.ids) :])[: len(entries)]
    assert all(one.position < last.released for one in entries)
    assert len(entries) <= 3


def test_an_asking_request_whose_choice_kept_none_ends_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ChoiceCopy, "likelihoods", lambda self: {})
    with running(loaded_model(), dictionary()) as run:
        asking, other = run.call(prompt(1), logprobs=1), run.call(prompt(2))
        assert isinstance(asking.finished().error, MonitoringFailed)
        assert not told(asking)
        assert other.finished().error is None


def test_what_a_choice_keeps_is_of_the_rows_that_asked() -> None:
    logits = 4 * torch.randn(5, 400, generator=torch.Generator().manual_seed(2))
    logits[4, 7] = float("-inf")
    wanted = logits.double().log_softmax(-1)
    settings = [
        Draw(Sampling(temperature=0.7, top_p=0.4, seed=1), 3),
        Draw(Sampling(), None),
        None,
        Draw(Sampling(), 0),
        Draw(Sampling(top_k=2, temperature=1.0), 400),
    ]
    for static in (False, True):
        sampler = Sampler(5, torch.device("cpu"), static=static)
        sampler.prepare(settings)
        assert sampler.tells
        assert sampler.choice(5).likelihoods() == {}
        chosen = sampler.choose(logits.clone()).tolist()
        found = sampler.choice(5).likelihoods()
        assert list(found) == [0, 3, 4]
        for row, one in found.items():
            assert one.logprob == pytest.approx(float(wanted[row, chosen[row]]), abs=1e-5)
            assert [v for _, v in one.likeliest] == pytest.approx(
                [max(float(wanted[row, token]), -9999.0) for token, _ in one.likeliest], abs=1e-5
            )
        assert [len(one.likeliest) for one in found.values()] == [3, 0, 400]
        assert found[4].likeliest[-1] == (7, -9999.0)
        sampler.prepare([settings[1], None])
        assert not sampler.tells
        sampler.choose(logits[:2].clone())
        assert sampler.choice(2).likelihoods() == {}


def leave(
    ids: list[int], *stop: str, prompt: tuple[int, ...] = (), made=byte_fallback
) -> list[tuple[str, list]]:
    """Of each push, and of the end: the text, and places and tokens of what left with it."""
    stream = TextStream(Vocabulary(made()), stop, prompt)
    telling: Telling[int] = Telling(stream)
    found = []
    for token_id in ids:
        piece = stream.push(token_id)
        found.append((piece, telling.pushed(token_id, token_id, piece)))
        if stream.stopped:
            return found
    rest = stream.finish()
    return [*found, (rest, telling.finished(rest))]


def test_tokens_of_one_character_leave_with_it() -> None:
    face = spelled("🙂".encode())
    found = leave([*face, WORDS["!"]])
    assert [text for text, _ in found] == ["", "", "", "🙂", "!", ""]
    assert found[3][1] == [(0, token_id) for token_id in face]
    assert found[4][1] == [(1, WORDS["!"])]
    assert not any(entries for _, entries in found[:3])


def test_bytes_of_a_character_that_never_comes_leave_at_the_end() -> None:
    found = leave([WORDS["!"], *spelled("🙂".encode()[:2])])
    assert [entries for _, entries in found] == [
        [(0, WORDS["!"])],
        [],
        [],
        [(1, BYTES + 0xF0), (1, BYTES + 0x9F)],
    ]


def test_a_token_without_text_between_parts_of_a_character_lets_none_of_them_leave() -> None:
    first, second = spelled("é".encode())
    found = leave([first, WORDS["</s>"], second])
    assert [entries for _, entries in found[:2]] == [[], []]
    assert [token_id for _, token_id in found[2][1]] == [first, WORDS["</s>"], second]


def test_a_token_leaves_once_no_stop_string_can_begin_in_it() -> None:
    ids = tokenizer()("abcad", add_special_tokens=False)["input_ids"]
    a, b, c, _, d = ids
    found = leave(ids, "abd", "adx", made=tokenizer)
    assert found == [
        ("", []),
        ("", []),
        ("abc", [(0, a), (1, b), (2, c)]),
        ("", []),
        ("", []),
        ("ad", [(3, a), (4, d)]),
    ]


def test_tokens_behind_a_stop_string_never_leave_and_one_that_it_cuts_does() -> None:
    ids = tokenizer()("abcd", add_special_tokens=False)["input_ids"]
    assert leave(ids, "bc", made=tokenizer) == [("a", [(0, ids[0])]), ("", []), ("", [])]
    words = [WORDS["▁I"], WORDS["▁want"], WORDS["▁to"]]
    # "I wa" is left, so that " want" is cut within.
    assert leave(words, "nt to") == [("I", [(0, words[0])]), (" wa", []), ("", [(1, words[1])])]


def test_a_stop_string_at_the_very_end_cuts_off_what_waits() -> None:
    letters = tokenizer()("abcd", add_special_tokens=False)["input_ids"]
    call = Passes((0, 5, 6), 4, "cd", logprobs=0).run([*letters, 9])
    assert call.finished(1).reason is FinishReason.STOP
    assert (call.text, [one.token_id for one in told(call)]) == ("ab", letters[:2])


@pytest.mark.parametrize("made", [tokenizer, byte_fallback])
def test_spellings_are_the_bytes_of_a_text(made) -> None:
    vocabulary = Vocabulary(made())
    text = "é🙂!" if made is byte_fallback else "a é🙂\n"
    ids = [*spelled("é🙂".encode()), WORDS["!"]] if made is byte_fallback else tokenizer().encode(text)[1:]
    found = [vocabulary.spelling(token_id) for token_id in ids]
    assert b"".join(one.data for one in found).decode() == text
    assert found[0].text == ("\\xc3" if made is byte_fallback else "a")
    assert vocabulary.spelling(made().eos_token_id).data is None
    assert vocabulary.spelling(made().eos_token_id).text == "</s>"
    if made is byte_fallback:
        assert vocabulary.spelling(WORDS["▁to"]).data == b" to"
