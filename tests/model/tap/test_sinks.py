"""Attention sinks at the tap: known in every pass, never judged, never edited."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from monitor.dictionary.residual_signals import sinks
from monitor.model.engine.paged import Limits
from monitor.model.engine.readout import Taken
from monitor.model.engine.requests import ScoreJob
from monitor.model.engine.scorer import Scorer
from monitor.model.load.model import LoadedModel
from monitor.model.offline.residuals import Harvester
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.error_term import ErrorTermDropper
from monitor.model.tap.suppression_check import Check, Watched
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Blocks, Clamp, Decision, ErrorTerm, LaterProbe, SuppressionPlan, Where
from tests.model.running import LAYER, running
from tests.model.tiny import KINDS, WIDTH, Recorder, dictionary, loaded_model, maxima

HEAVY = 77
"""A token whose residual is a hundred times as long as any other's, wherever it stands."""
LIMIT = 300.0
CLAMPS = tuple(Clamp(feature, -2.0, Where.EVERYWHERE) for feature in (3, 40))


def model_with_sink() -> LoadedModel:
    """A tiny model in which HEAVY is an attention sink at every layer."""
    loaded = loaded_model()
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[HEAVY] = 1000.0
    return loaded


def prompt(number: int, length: int) -> tuple[int, ...]:
    make = torch.Generator().manual_seed(number)
    ids = torch.randint(2, 258, (length,), generator=make)
    ids[torch.rand(length, generator=make) < 0.1] = HEAVY
    return tuple(ids.tolist())


class Seen(Recorder):
    """Keeps which tokens of its request are said to be sinks, by position."""

    def observe_batch(self, blocks: Blocks) -> dict[int, Decision]:
        for number in range(len(blocks)):
            start = int(blocks.starts[number])
            rows = blocks.rows(number)
            count = rows.stop - rows.start
            flags = [False] * count if blocks.sinks is None else blocks.sinks[rows].tolist()
            self.__dict__.setdefault("flags", {}).update(zip(range(start, start + count), flags, strict=True))
        return super().observe_batch(blocks)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error_term", [ErrorTerm.KEEP, ErrorTerm.DROP])
def test_clamps_leave_sinks_bit_identical(kind: str, static: bool, error_term: ErrorTerm) -> None:
    sae = dictionary(kind)
    bank = FeatureBank(sae, maxima(), range(10))
    tap = Tap(bank, torch.nn.Identity(), ErrorTermDropper(sae, bank.device, bank.dtype), norm_limit=40.0)
    x = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(0))
    x[[4, 7]] *= 100
    buffers = TapBuffers(bank, 12, static=static)
    buffers.begin([0, 9])
    buffers.clamping = True
    buffers.everywhere[:, 2] = True
    buffers.target[:, 2] = -3.0
    buffers.dropping = error_term is ErrorTerm.DROP
    buffers.drop[:] = buffers.dropping
    buffers.settle(bank)
    out = tap.apply(x, buffers)
    left = torch.zeros(12, dtype=torch.bool)
    left[[0, 4, 7, 9]] = True
    assert torch.equal(buffers.sinks, left)
    assert torch.equal((out == x).all(-1), left)
    assert torch.equal(buffers.chosen.any(-1), ~left)


def test_first_rows_of_an_earlier_pass_are_forgotten() -> None:
    bank = FeatureBank(dictionary(), maxima(), range(10))
    tap, buffers = Tap(bank, torch.nn.Identity(), norm_limit=40.0), TapBuffers(bank, 8)
    x = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(1))
    for rows in ([0, 5], [], [3]):
        buffers.begin(rows)
        buffers.poison(8)
        tap.apply(x, buffers)
        assert buffers.sinks.nonzero().flatten().tolist() == rows


@pytest.mark.slow
@pytest.mark.parametrize("clamps", [(), CLAMPS])
@pytest.mark.parametrize("batch_tokens", [16, 96])
def test_the_engine_knows_the_sinks_of_prompts_and_responses(
    batch_tokens: int, clamps: tuple[Clamp, ...]
) -> None:
    """Prompts of many lengths, longer than a pass; the flags are those of a plain forward pass over the whole."""
    loaded = model_with_sink()
    limits = Limits(running=16, batch_tokens=batch_tokens)
    with running(loaded, dictionary(), limits=limits, norm_limit=LIMIT) as run:
        calls = [run.call(prompt(n, 3 + 9 * n), observer=Seen(), clamps=clamps) for n in range(6)]
        finished = [call.finished() for call in calls]
    for call, end in zip(calls, finished, strict=True):
        ids = torch.tensor([[token.token_id for token in call.tokens]])
        x = Harvester(loaded, LAYER).residuals(ids)[0]
        wanted = sinks(x, torch.arange(len(x)), LIMIT)
        flags = call.observer.flags
        assert [flags[at] for at in range(len(x))] == wanted.tolist()
        assert end.coverage.tokens_sinks == int(wanted.sum()) > 0
        assert end.coverage.complete


def test_the_scorer_knows_them_in_texts_of_many_lengths() -> None:
    loaded = model_with_sink()
    bank = FeatureBank(dictionary(), maxima(), range(10))
    tap = Tap(bank, loaded.layers[LAYER], norm_limit=LIMIT)
    scorer, outcomes, done = Scorer(loaded, bank, tap, batch_tokens=256), {}, threading.Event()
    texts = {str(n): prompt(n, 3 + 7 * n) for n in range(6)}
    observers = {name: Seen() for name in texts}

    def keep(found: list) -> None:
        outcomes.update(found)
        if len(outcomes) == len(texts):
            done.set()

    tap.attach()
    scorer.start()
    for name, ids in texts.items():
        scorer.submit(ScoreJob(name, ids, observers[name], observers[name]), keep)
    assert done.wait(60)
    scorer.stop(5)
    tap.detach()
    for name, ids in texts.items():
        x = Harvester(loaded, LAYER).residuals(torch.tensor([ids]))[0]
        wanted = sinks(x, torch.arange(len(x)), LIMIT)
        assert [observers[name].flags[at] for at in range(len(x))] == wanted.tolist()
        assert outcomes[name].coverage.tokens_sinks == int(wanted.sum())


@pytest.mark.parametrize("error_term", [ErrorTerm.KEEP, ErrorTerm.DROP])
def test_what_the_layer_hands_on_is_edited_at_all_tokens_but_sinks(error_term: ErrorTerm) -> None:
    loaded = model_with_sink()
    before: list[torch.Tensor] = []
    after: list[torch.Tensor] = []
    clamps = tuple(replace(clamp, error_term=error_term) for clamp in CLAMPS)
    handles = [
        loaded.layers[LAYER].register_forward_hook(lambda _m, _a, out: before.append(_rows(out))),
        loaded.layers[LAYER + 1].register_forward_pre_hook(lambda _m, args: after.append(_rows(args))),
    ]
    with running(loaded, dictionary(), norm_limit=LIMIT) as run:
        run.tap.dropper = ErrorTermDropper(dictionary(), run.bank.device, run.bank.dtype)
        call = run.call(prompt(5, 40), clamps=clamps)
        call.finished()
    for handle in handles:
        handle.remove()
    flags = call_flags(torch.cat(before), call.tokens)
    same = (torch.cat(before) == torch.cat(after)).all(-1)[: len(flags)]
    assert same.tolist() == flags


def _rows(output: object) -> torch.Tensor:
    x = output[0] if isinstance(output, tuple) else output
    return x.reshape(-1, WIDTH).clone()


def call_flags(x: torch.Tensor, tokens: list) -> list[bool]:
    return sinks(x[: len(tokens)], torch.arange(len(tokens)), LIMIT).tolist()


def test_the_later_probe_does_not_read_sinks() -> None:
    probe = LaterProbe(3, torch.ones(WIDTH).numpy(), 0.0, 1e9, 4.0)
    check = Check(SuppressionPlan("p", (3,), probe))
    nothing = np.zeros((4, 10), np.float32)
    bank = FeatureBank(dictionary(), maxima(), range(10))
    taken = Taken(bank, nothing, 10, sinks=np.array([True, False, True, False]))
    taken.after, taken.chosen = nothing, np.zeros((4, 10), bool)
    taken.later = np.array([[9.0], [1.0], [9e6], [1.0]], np.float32)
    check.add(taken.check(slice(0, 4), Watched((3,), 0)))
    assert 0 < check.found().probe_score < 1
