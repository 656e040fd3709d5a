"""What the paged batcher relies on in transformers; a failure here means that the library has changed."""

import inspect
import threading
from types import SimpleNamespace

import pytest
import torch
from transformers.generation.continuous_batching import continuous_api as api
from transformers.generation.continuous_batching.input_outputs import ContinuousBatchingIOs
from transformers.generation.continuous_batching.model_runner import ModelRunner
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState
from transformers.generation.continuous_batching.scheduler import Scheduler

from monitor.errors import ModelError
from monitor.model.engine.paged import Batcher, Limits, _uncaptured, check_transformers, why_slow
from monitor.model.tap.span import Span
from tests.model.tiny import loaded_model, prompt


class TestPrivateNames:
    def test_the_manager(self) -> None:
        for name in (
            "_create_batch_processor",
            "add_request",
            "cancel_request",
            "warmup",
            "start",
            "stop",
            "is_running",
        ):
            assert callable(getattr(api.ContinuousBatchingManager, name))
        source = inspect.getsource(api.ContinuousBatchingManager)
        for name in (
            "output_router",
            "background_thread_status",
            "continuous_batching_config",
            "_generation_thread",
        ):
            assert f"self.{name}" in source

    def test_the_loop_calls_what_we_wrap_on_the_instance(self) -> None:
        loop = inspect.getsource(api.ContinuousBatchingManager._generation_loop_body)
        assert (
            loop.index("prepare_next_batch()")
            < loop.index("_generation_step()")
            < loop.index("update_batch()")
        )
        assert "self._create_batch_processor()" in inspect.getsource(
            api.ContinuousBatchingManager._run_generation_loop
        )
        assert "record_fatal_error(" in inspect.getsource(
            api.ContinuousBatchingManager._handle_critical_error
        )

    def test_the_batch_and_its_requests(self) -> None:
        assert {"state", "has_new_token", "query_length"} <= set(FutureRequestState.__slots__)
        assert {"request_id", "position_offset"} <= set(RequestState.__dataclass_fields__)
        assert "requests_in_batch, new_tokens, logprobs" in inspect.getsource(
            api.ContinuousBatchProcessor.update_batch
        )
        assert list(inspect.signature(ContinuousBatchingIOs.prepare_batch_update).parameters) == ["self"]
        assert list(inspect.signature(ModelRunner._sample).parameters) == ["self", "scores", "output_ids"]

    def test_whether_a_pass_replays_a_graph_is_asked_of_two_names(self) -> None:
        for use_block_table, name in ((True, "use_cuda_graph_decode"), (False, "use_cuda_graph_varlen")):
            runner = SimpleNamespace(
                use_cuda_graph_decode=True,
                use_cuda_graph_varlen=True,
                _compiled_decode=None,
                _compiled_varlen=None,
                _forward_process_and_sample=None,
            )
            asked = ModelRunner._get_forward_fn
            assert asked(runner, use_block_table) == (None, True)
            with _uncaptured(runner):
                assert asked(runner, use_block_table) == (None, False)
            assert getattr(runner, name) is True
            assert asked(runner, use_block_table) == (None, True)

    def test_admission_is_blocked_after_an_eviction(self) -> None:
        assert "self.block_new_requests = False" in inspect.getsource(Scheduler.reset)


class Passes:
    """Steps that only keep what they are told."""

    def __init__(self) -> None:
        self.rows = 0
        self.passes: list[tuple[list[Span], int]] = []
        self.tokens: list[list[int | None]] = []
        self.ids: list[tuple[list[Span], list[int]]] = []
        self.batcher: Batcher | None = None
        self.removed: set[str] = set()
        self.all_removed = threading.Event()

    def ready(self, rows: int) -> None:
        self.rows = rows

    def before(self, spans, rows) -> None:
        self.passes.append((list(spans), rows))

    def suspect(self) -> bool:
        return False

    def draw(self, logits):
        return logits.argmax(-1)

    def replays(self) -> bool:
        return True

    def again(self) -> bool:
        return False

    def after(self, spans, tokens, ids) -> None:
        self.ids.append((list(spans), list(ids)))
        self.tokens.append(list(tokens))
        for span, token in zip(spans, tokens, strict=True):
            assert span.draws == (token is not None)
            if span.draws and len(self.tokens) > 8:
                self.batcher.remove(span.request_id)
                self.removed.add(span.request_id)
        if len(self.removed) == 6:
            self.all_removed.set()

    def died(self, error) -> None:
        raise error


@pytest.mark.slow
def test_spans_cover_every_row_and_every_position_once() -> None:
    steps = Passes()
    batcher = steps.batcher = Batcher(loaded_model(), Limits(running=4, batch_tokens=24), steps)
    prompts = {f"r{n}": prompt(n) for n in range(6)}
    batcher.start()
    assert steps.rows == 24
    for name, ids in prompts.items():
        batcher.add(name, ids, 20)
    assert steps.all_removed.wait(30)
    batcher.stop(10)
    assert not batcher.alive()
    seen: dict[str, int] = {}
    for spans, rows in steps.passes:
        assert [span.first for span in spans] == [sum(s.count for s in spans[:i]) for i in range(len(spans))]
        assert sum(span.count for span in spans) == rows <= 24
        for span in spans:
            assert span.position == seen.get(span.request_id, 0)
            seen[span.request_id] = span.position + span.count
            assert span.draws == (seen[span.request_id] >= len(prompts[span.request_id]))
    assert seen.keys() == prompts.keys()
    for spans, ids in steps.ids:
        for span in spans:
            wanted = prompts[span.request_id][span.position : span.position + span.count]
            assert tuple(ids[span.first : span.first + len(wanted)]) == wanted


class TestFlashAttention:
    @pytest.mark.parametrize(
        ("dtype", "wanted"), [(torch.bfloat16, "flash_attention_2"), (torch.float32, "sdpa")]
    )
    def test_only_half_precision_takes_it(
        self, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, wanted: str
    ) -> None:
        """It computes in half precision alone, and transformers takes it wherever it is installed."""
        loaded, chosen = loaded_model(dtype=dtype), []
        monkeypatch.setattr(api, "is_flash_attn_3_available", lambda **_: False)
        monkeypatch.setattr(api, "is_flash_attn_2_available", lambda **_: True)
        monkeypatch.setattr(loaded.model, "set_attn_implementation", chosen.append)
        Batcher(loaded, Limits(), Passes())
        assert (chosen or ["sdpa"]) == [wanted]

    def test_what_else_is_slow(self) -> None:
        assert [why_slow(name) for name in ("flash_attention_2", "paged|flash_attention_3")] == ["", ""]
        assert "sdpa, not flash attention" in why_slow("sdpa")


def test_another_version_of_transformers_is_refused_with_what_to_do() -> None:
    check_transformers("5.23.4")
    for version in ("5.19.0", "5.24.0", "4.23.0"):
        with pytest.raises(ModelError, match=rf"finds {version}; .*--engine vllm"):
            check_transformers(version)
