"""One pass over tokens of many sequences: every family reads each as if it were alone, or is found out."""

import pytest
import torch

from monitor.model.engine.chunks import Chunks
from monitor.model.engine.ragged_pass import Continuation, KeysValues, RaggedPasses
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
    passes, chunks, held = RaggedPasses(loaded), chunks_of(loaded), KeysValues()
    chunks.read_during(lambda: passes.run([Continuation(held, 0, [0, 5, 6])]))
    first = chunks.read_during(lambda: passes.run([Continuation(held, 3, [7, 8])]))
    chunks.read_during(lambda: passes.run([Continuation(held, 3, [90])]))
    torch.testing.assert_close(chunks.read_during(lambda: passes.run([Continuation(held, 3, [7, 8])])), first)


def test_keys_and_values_grow_and_keep_what_they_hold() -> None:
    held = KeysValues()
    keys = torch.arange(200.0).reshape(1, 1, 200, 1)
    held.put(0, 0, keys[:, :, :3], -keys[:, :, :3])
    room = held.room
    assert room >= 3
    seen, values = held.put(0, 3, keys[:, :, 3:], -keys[:, :, 3:])
    assert torch.equal(seen, keys)
    assert torch.equal(values, -keys)
    assert held.room >= 200 > room
    assert held.bytes == 2 * 4 * held.room
