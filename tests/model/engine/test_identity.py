"""With no clamp active the watched engine computes exactly what the library's own engine computes."""

import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from monitor.model.engine.paged import Limits
from monitor.model.load.model import LoadedModel
from monitor.records import Clamp, Where
from tests.model.running import Running, running
from tests.model.tiny import dictionary, loaded_model, prompt

NEW, REQUESTS = 10, 12


def endless(seed: int = 0) -> LoadedModel:
    """A model without an end-of-text token, so that every request takes part in every pass."""
    loaded = loaded_model(seed=seed)
    loaded.model.generation_config.eos_token_id = None
    loaded.tokenizer.eos_token = None
    return loaded


def captured(runner: object, logits: list[torch.Tensor]) -> None:
    """Keep the logits of every pass."""
    sample = runner._sample

    def keep(scores: torch.Tensor, output_ids: torch.Tensor) -> None:
        logits.append(scores.clone())
        sample(scores, output_ids)

    runner._sample = keep


def bare(loaded: LoadedModel) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Tokens and logits of transformers' own continuous batching, nothing of ours attached."""
    config = ContinuousBatchingConfig(
        page_size=32,
        num_blocks=16 * 128 // 32,
        max_batch_tokens=512,
        max_requests_per_batch=16,
        allow_block_sharing=False,
        use_async_batching=False,
    )
    generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    manager = loaded.model.init_continuous_batching(generation, config)
    manager.warmup()
    logits: list[torch.Tensor] = []
    captured(manager.batch_processor.model_runner, logits)
    for n in range(REQUESTS):
        manager.add_request(list(prompt(n, 30)), request_id=f"r{n}", max_new_tokens=NEW, eos_token_id=[-1])
    manager.start()
    results = {}
    while len(results) < REQUESTS:
        output = manager.get_result(timeout=30)
        assert output is not None
        results[output.request_id] = output.generated_tokens
    manager.stop(block=True, timeout=10)
    return [results[f"r{n}"] for n in range(REQUESTS)], logits


def ours(run: Running, clamped: bool = False) -> tuple[list[list[int]], list[torch.Tensor]]:
    """The same requests, submitted while the loop is paused so that the passes are the same."""
    manager = run.engine._batcher._manager
    logits: list[torch.Tensor] = []
    captured(manager.batch_processor.model_runner, logits)
    with manager.pause():
        calls = [
            run.call(
                prompt(n, 30),
                new=NEW,
                clamps=[Clamp(5, -1.0, Where.EVERYWHERE)] if clamped and n == 0 else (),
            )
            for n in range(REQUESTS)
        ]
    for call in calls:
        call.finished()
    return [[t.token_id for t in call.tokens[len(call.ids) :]] for call in calls], logits


@pytest.mark.slow
def test_tokens_and_logits_are_bit_identical_to_the_bare_engine() -> None:
    wanted_tokens, wanted_logits = bare(endless())
    with running(endless(), dictionary(), limits=Limits(running=16, batch_tokens=512)) as run:
        tokens, logits = ours(run)
    assert tokens == wanted_tokens
    assert len(wanted_logits) == NEW
    for one, two in zip(logits, wanted_logits, strict=False):
        assert torch.equal(one, two)


@pytest.mark.slow
def test_requests_beside_a_clamped_one_keep_their_bits() -> None:
    with running(endless(), dictionary(), limits=Limits(running=16, batch_tokens=512)) as run:
        tokens, logits = ours(run)
    with running(endless(), dictionary(), limits=Limits(running=16, batch_tokens=512)) as run:
        clamped_tokens, clamped_logits = ours(run, clamped=True)
    assert clamped_tokens[1:] == tokens[1:]
    for one, two in zip(clamped_logits, logits, strict=True):
        assert torch.equal(one[:, 1:], two[:, 1:])
    assert not torch.equal(clamped_logits[0][:, 0], logits[0][:, 0])
