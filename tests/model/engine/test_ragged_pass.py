"""One pass over tokens of many sequences: every family reads each as if it were alone, or is found out."""

import random

import pytest
import torch

from monitor.model.engine import keys_values
from monitor.model.engine.chunks import Chunks
from monitor.model.engine.keys_values import KeysValues, Slabs
from monitor.model.engine.ragged_pass import Continuation, RaggedPasses, _RunningPass
from tests.model.families import FAMILIES, RECURRENT, family_model
from tests.model.running import LAYER
from tests.model.tiny import CONFIGS, loaded_model

ONE_BY_ONE = {"bloom", "diffllama", "falcon", "gpt_neo", "gptj", "mpt"}
"""Families with an attention of their own, or without positions."""


def chunks_of(loaded) -> Chunks:
    return Chunks(loaded, loaded.layers[LAYER])


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*CONFIGS, *FAMILIES} - RECURRENT.keys()))
def test_families_read_sequences_beside_each_other_or_are_found_out(kind: str) -> None:
    loaded = loaded_model(kind) if kind in CONFIGS else family_model(kind)
    passes = RaggedPasses(loaded)
    passes.rehearse(chunks_of(loaded))
    assert bool(passes.why_separate) == (kind in ONE_BY_ONE)
    assert not loaded.model.config._attn_implementation.startswith("ragged")


def test_a_family_that_would_read_them_otherwise_is_found_out() -> None:
    loaded = loaded_model()
    passes = RaggedPasses(loaded)

    def mixed(module, query, key, value, mask=None, **options):
        return value.repeat_interleave(2, dim=1).transpose(1, 2), None

    passes._inner = mixed
    passes.rehearse(chunks_of(loaded))
    assert passes.why_separate == "a pass of several sequences fails with RuntimeError"
    again = RaggedPasses(loaded)
    again._inner = lambda module, query, *rest, **options: (query.transpose(1, 2), None)
    again.rehearse(chunks_of(loaded))
    assert again.why_separate == "it reads sequences beside each other otherwise than alone"


def test_a_model_that_takes_no_positions_runs_them_one_by_one() -> None:
    loaded = loaded_model()
    plain = loaded.model.forward
    loaded.model.forward = lambda input_ids, use_cache=None: plain(input_ids, use_cache=use_cache)
    assert "positions" in RaggedPasses(loaded).why_separate


def test_a_pass_may_be_run_again() -> None:
    """What was written of tokens whose pass failed is overwritten."""
    loaded = loaded_model()
    passes, chunks, held = RaggedPasses(loaded), chunks_of(loaded), KeysValues(Slabs())
    chunks.read_during(lambda: passes.run([Continuation(held, 0, [0, 5, 6])]))
    first = chunks.read_during(lambda: passes.run([Continuation(held, 3, [7, 8])]))
    chunks.read_during(lambda: passes.run([Continuation(held, 3, [90])]))
    torch.testing.assert_close(chunks.read_during(lambda: passes.run([Continuation(held, 3, [7, 8])])), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "shared"), [(9, 3), (4, 4)])
@pytest.mark.parametrize("window", [None, 4])
def test_attention_computes_what_transformers_does(dtype, heads, shared, window) -> None:
    """Of parts of one token and of several, at a sequence's beginning and later, with and without shared heads."""
    torch.manual_seed(0)
    loaded = loaded_model()
    passes = RaggedPasses(loaded)
    module = torch.nn.Module()
    module.layer_idx, module.num_key_value_groups = 0, heads // shared

    def attended(inner) -> list[torch.Tensor]:
        chance = torch.Generator().manual_seed(1)
        slabs = Slabs()
        held, done = [KeysValues(slabs) for _ in range(3)], [0, 0, 0]
        passes._inner, out = inner, []
        for sizes in ((6, 1, 9), (1, 1, 1), (3, 1, 1)):
            rows = [
                torch.randn(1, n, sum(sizes), 8, generator=chance).to(dtype) for n in (heads, shared, shared)
            ]
            parts = [Continuation(h, at, [0] * size) for h, at, size in zip(held, done, sizes, strict=True)]
            passes._now.running = _RunningPass(parts, inner)
            out.append(passes._attend(module, *rows, scaling=0.3, sliding_window=window)[0])
            done = [at + size for at, size in zip(done, sizes, strict=True)]
        return out

    ours = attended(passes._sdpa)
    theirs = attended(lambda *given, **options: passes._sdpa(*given, **options))
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("kind", [*sorted(CONFIGS), "gemma3_text"])
def test_sequences_that_share_calls_are_read_as_if_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of mixed lengths, any of them in a pass, beside parts of several tokens, over slabs that they outgrow."""
    monkeypatch.setattr(keys_values, "_FIRST", 4)
    monkeypatch.setattr(keys_values, "_SLAB", 64)
    chance, loaded = random.Random(3), loaded_model(kind) if kind in CONFIGS else family_model(kind)
    passes, chunks = RaggedPasses(loaded), chunks_of(loaded)
    texts = [[chance.randrange(2, 250) for _ in range(length)] for length in (37, 30, 24, 40, 9, 33)]
    held, done = [KeysValues(passes.slabs) for _ in texts], [0] * len(texts)
    read: list[list[torch.Tensor]] = [[] for _ in texts]
    calls = 0
    while running := [s for s, text in enumerate(texts) if done[s] < len(text)]:
        which = chance.sample(running, chance.randrange(1, len(running) + 1))
        sizes = [min(chance.choice((1, 1, 1, 1, 5)), len(texts[s]) - done[s]) for s in which]
        parts = [
            Continuation(held[s], done[s], texts[s][done[s] : done[s] + size])
            for s, size in zip(which, sizes, strict=True)
        ]
        calls += len(_RunningPass(parts, None).together)
        rows = chunks.read_during(lambda parts=parts: passes.run(parts))[0]
        for s, size, mine in zip(which, sizes, rows.split(sizes), strict=True):
            read[s].append(mine)
            done[s] += size
    assert calls > 5
    for text, mine in zip(texts, read, strict=True):
        whole = torch.cat([part for _, part in chunks.residuals(text)])
        torch.testing.assert_close(torch.cat(mine), whole, rtol=1e-4, atol=1e-4)


def test_what_is_no_number_in_one_sequence_reaches_none_that_shares_its_call() -> None:
    loaded = loaded_model()
    passes, chunks = RaggedPasses(loaded), chunks_of(loaded)
    held = [KeysValues(passes.slabs) for _ in range(3)]
    first = [Continuation(one, 0, [0, 5 + n, 6]) for n, one in enumerate(held)]
    second = [Continuation(one, 3, [7 + n]) for n, one in enumerate(held)]
    chunks.read_during(lambda: passes.run(first))
    wanted = chunks.read_during(lambda: passes.run(second))[0]
    assert len(_RunningPass(second, None).together) == 1
    for keys, values in held[1]._layers.values():
        keys[:, :, :3], values[:, :, :3] = torch.nan, torch.inf
    found = chunks.read_during(lambda: passes.run(second))[0]
    assert torch.equal(found[[0, 2]], wanted[[0, 2]])
    assert not found[1].isfinite().all()
