"""Requests that take turns: which passes run, who waits, what is kept and freed, which models are refused."""

import gc
import threading
import weakref

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from monitor.errors import ModelError
from monitor.model.engine.paged import Limits
from monitor.model.engine.serial import SeparateBatcher
from monitor.model.load.model import LoadedModel
from monitor.model.tap.span import Span
from tests.model.engine.test_serial_generation import CHUNK, LIMITS
from tests.model.families import family_model
from tests.model.running import running
from tests.model.tiny import CONTEXT, LLAMA_LIKE, dictionary, loaded_model, wrapped


class Passes:
    """Steps that keep what they are told and end a request after some tokens."""

    def __init__(self, new: int = 6) -> None:
        self.new, self.rows = new, 0
        self.passes: list[Span] = []
        self.drawn: dict[str, int] = {}
        self.ended: list[str] = []
        self.error: BaseException | None = None
        self.most = 0
        self.over = threading.Event()
        self.batcher: SeparateBatcher

    def ready(self, rows: int) -> None:
        self.rows = rows

    def before(self, spans, rows) -> None:
        [span] = spans
        assert rows == span.count <= self.rows
        self.passes.append(span)
        self.most = max(self.most, self.batcher.running())

    def draw(self, logits):
        return logits.argmax(-1)

    def after(self, spans, tokens, ids) -> None:
        [span], [token] = spans, tokens
        assert len(ids) == span.count
        assert span.draws == (token is not None)
        self.drawn[span.request_id] = self.drawn.get(span.request_id, 0) + span.draws
        if self.drawn[span.request_id] > self.new:
            self.batcher.remove(span.request_id)
            self.ended.append(span.request_id)
            if len(self.ended) == len(self.drawn) == self.wanted:
                self.over.set()

    def died(self, error) -> None:
        self.error = error
        self.over.set()

    def run(self, limits: Limits, lengths: list[int], loaded: LoadedModel | None = None) -> "Passes":
        self.batcher, self.wanted = (
            SeparateBatcher(loaded or family_model("falcon"), limits, self),
            len(lengths),
        )
        for number, length in enumerate(
            lengths
        ):  # before the start, so that all of them wait for the first turn
            self.batcher.add(f"r{number}", (0, *[7] * (length - 1)), self.new)
        self.batcher.start()
        assert self.over.wait(60)
        self.batcher.stop(10)
        assert not self.batcher.alive()
        return self


class TestTurns:
    def test_every_position_runs_once_in_chunks(self) -> None:
        lengths = [5, 40, 16, 33]
        steps = Passes().run(LIMITS, lengths)
        for number, length in enumerate(lengths):
            mine = [span for span in steps.passes if span.request_id == f"r{number}"]
            assert [span.position for span in mine] == [
                sum(s.count for s in mine[:i]) for i in range(len(mine))
            ]
            prefill = [span.count for span in mine if span.position < length]
            assert sum(prefill) == length
            assert max(prefill) <= CHUNK
            assert [span.draws for span in mine] == [span.position + span.count >= length for span in mine]
            assert len(mine) - len(prefill) == steps.new

    def test_requests_take_turns(self) -> None:
        steps = Passes().run(LIMITS, [5, 5, 40, 5])
        names = [span.request_id for span in steps.passes]
        assert (
            names[:8] == ["r0", "r1", "r2", "r3"] * 2
        )  # a long prompt has one chunk in a round, as others a token

    def test_a_recurrent_prompt_is_one_pass(self) -> None:
        steps = Passes().run(LIMITS, [40, 90], family_model("mamba"))
        assert [span.count for span in steps.passes if span.position == 0] == [40, 90]

    @pytest.mark.parametrize(
        ("limits", "most"),
        [(Limits(running=2), 2), (Limits(running=8, cache_tokens=CONTEXT), 2), (Limits(running=8), 8)],
    )
    def test_who_finds_no_room_waits_and_comes_in_order(self, limits: Limits, most: int) -> None:
        steps = Passes().run(limits, [50] * 8)  # two times 50 + 6 tokens fit a cache of 128
        assert steps.most == most
        firsts = [span.request_id for span in steps.passes if span.position == 0]
        assert firsts == [f"r{number}" for number in range(8)]
        assert sorted(steps.ended) == firsts

    @pytest.mark.slow
    def test_a_cache_is_freed_with_its_request(self) -> None:
        loaded, kept = family_model("falcon"), []

        def note(_module, _args, given, output) -> None:
            kept.append(weakref.ref(output.past_key_values))

        loaded.model.register_forward_hook(note, with_kwargs=True)
        alive: list[int] = []

        class Counting(Passes):
            def before(self, spans, rows) -> None:
                super().before(spans, rows)
                gc.collect()
                alive.append(len({id(ref()) for ref in kept if ref() is not None}))

        Counting(new=2).run(Limits(running=2), [9] * 6, loaded)
        gc.collect()
        assert max(alive) == 2
        assert not any(ref() is not None for ref in kept)


class TestRefusals:
    def test_a_cache_that_cannot_hold_one_sequence_is_refused(self) -> None:
        small = Limits(cache_tokens=CONTEXT - 1)
        with pytest.raises(
            ModelError, match=r"set max_cache_tokens to at least 128, or context_limit to at most 127"
        ):
            SeparateBatcher(family_model("falcon"), small, Passes()).start()

    def test_a_model_that_keeps_the_past_in_itself_is_refused(self) -> None:
        config = AutoConfig.for_model(
            "recurrent_gemma",
            **LLAMA_LIKE,
            lru_width=32,
            attention_window_size=16,
            bos_token_id=0,
            eos_token_id=1,
        )
        loaded = wrapped(AutoModelForCausalLM.from_config(config), "recurrent_gemma", torch.float32)
        with pytest.raises(ModelError, match="hands out no cache"), running(loaded, dictionary()):
            pass

    def test_a_model_without_a_cache_is_refused(self) -> None:
        class Plain(torch.nn.Module):
            def forward(self, input_ids):
                return input_ids

        loaded = loaded_model()
        object.__setattr__(loaded, "model", Plain())
        with pytest.raises(ModelError, match="takes no cache"):
            SeparateBatcher(loaded, LIMITS, Passes())
