"""Answers: what the model itself says to many questions, generated in large batches on the CPU.

A batch holds questions of nearly equal length. Keys and values lie in a cache of fixed size; heads that share keys and
values are rows of one product, so that nothing is repeated; answers that have ended leave the batch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from monitor.model.chat_template import ChatTemplate
from monitor.model.load.model import LoadedModel
from monitor.recipes.smollm2.questions import Question

ATTENTION = "grouped_slice"
"""Name under which the attention of this module is registered with transformers."""
LINES_EVERY = 60.0
"""Seconds between lines about the pace."""
COMPACT_BELOW = 0.75
"""A batch is made smaller once fewer than this share of its answers go on."""


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How answers are drawn."""

    temperature: float = 0.8
    top_k: int = 50
    longest: int = 384
    """Most tokens of an answer."""
    batch: int = 96
    seed: int = 0
    share_opening: bool = False
    """Whether the tokens with which all prompts of a batch open are read once for all of them: worth it where prompts
    open with the same long instruction. Numbers come out the same but for rounding."""


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """What the model said."""

    question: Question
    text: str
    tokens: int
    """Tokens of the answer, the end-of-turn token among them."""
    finished: bool
    """False where it was cut at the longest length."""


@torch.no_grad()
def answers(
    loaded: LoadedModel, questions: Sequence[Question], plan: SamplingPlan, report: Callable[[int], None]
) -> Iterator[GivenAnswer]:
    """The model's answers, in an order of its own; `report` is told the tokens of each step.

    Draws depend on the seed and on how questions fall into batches, so the same call gives the same answers.
    """
    _register()
    template = ChatTemplate(loaded.tokenizer, loaded.text)
    prompts = [list(template(question.turns, reply=True).ids) for question in questions]
    order = sorted(range(len(questions)), key=lambda n: (len(prompts[n]), n))
    loaded.model.set_attn_implementation(ATTENTION)
    try:
        for start in range(0, len(order), plan.batch):
            group = order[start : start + plan.batch]
            batch = _Batch(loaded, [prompts[n] for n in group], plan, plan.seed + start)
            for place, ids, finished in batch.run(report):
                text = loaded.tokenizer.decode(ids, skip_special_tokens=True).strip()
                yield GivenAnswer(questions[group[place]], text, len(ids), finished)
    finally:
        loaded.model.set_attn_implementation("sdpa")


class Pace:
    """Counts tokens and tells how fast they come."""

    def __init__(self, tell: Callable[[str], None], every: float = LINES_EVERY) -> None:
        self._tell, self._every = tell, every
        self._started = self._told = time.monotonic()
        self.tokens = 0
        self.done = 0.0
        """Share of the work that is finished, 0 to 1."""

    def add(self, tokens: int) -> None:
        """Count tokens."""
        self.tokens += tokens
        now = time.monotonic()
        if now - self._told >= self._every:
            self._told = now
            seconds = now - self._started
            left = f", about {seconds / self.done * (1 - self.done) / 60:.0f} min left" if self.done else ""
            self._tell(f"{self.tokens:>10,} tokens, {self.tokens / seconds:,.0f} a second{left}")


class _Batch:
    """Answers that are generated together."""

    def __init__(
        self, loaded: LoadedModel, prompts: Sequence[Sequence[int]], plan: SamplingPlan, seed: int
    ) -> None:
        from transformers import StaticCache

        self._loaded, self._plan = loaded, plan
        self._random = torch.Generator().manual_seed(seed)
        self._ends = torch.tensor(sorted(_end_ids(loaded)))
        width = max(map(len, prompts))
        self._shared = _opening(prompts) if plan.share_opening else 0
        self._cache: Any = StaticCache(config=loaded.model.config, max_cache_len=width + plan.longest)
        self._ids = torch.zeros(len(prompts), width, dtype=torch.int64)
        self._mask = torch.zeros(len(prompts), width + plan.longest, dtype=torch.bool)
        for row, ids in enumerate(prompts):
            # What all open with stands in the first columns, padding behind it, and the rest at the end.
            rest = width - len(ids) + self._shared
            self._ids[row, : self._shared] = torch.tensor(ids[: self._shared])
            self._ids[row, rest:width] = torch.tensor(ids[self._shared :])
            self._mask[row, : self._shared] = True
            self._mask[row, rest:] = True
        self._lengths = torch.tensor([len(ids) for ids in prompts])
        self._width = width

    def run(self, report: Callable[[int], None]) -> Iterator[tuple[int, list[int], bool]]:
        """Place, token ids and whether it ended by itself, of each answer."""
        places = torch.arange(len(self._ids))
        said: list[list[int]] = [[] for _ in places]
        scores = self._read()
        going = torch.ones(len(places), dtype=torch.bool)
        for step in range(self._plan.longest):
            drawn = self._draw(scores)
            ended = going & torch.isin(drawn, self._ends)
            for row in going.nonzero().squeeze(1).tolist():
                said[int(places[row])].append(int(drawn[row]))
            report(int(going.sum()))
            for row in ended.nonzero().squeeze(1).tolist():
                place = int(places[row])
                yield place, said[place], True
            going &= ~ended
            if not bool(going.any()) or step == self._plan.longest - 1:
                break
            if float(going.float().mean()) < COMPACT_BELOW:
                places, drawn = self._keep(going, places, drawn)
                going = going[going]
            at = self._lengths + step
            scores = self._forward(drawn.unsqueeze(1), at.unsqueeze(1), self._width + step + 1)
        for row in going.nonzero().squeeze(1).tolist():
            place = int(places[row])
            yield place, said[place], False

    def _read(self) -> Tensor:
        """Scores of the first token of each answer, once the prompts are in the cache."""
        positions = (self._mask[:, : self._width].cumsum(1) - 1).clamp_min(0)
        shared = self._shared
        if shared:
            self._forward(self._ids[:1, :shared], positions[:1, :shared], shared)
            for layer in self._cache.layers:
                layer.keys = layer.keys.repeat(len(self._ids), 1, 1, 1)
                layer.values = layer.values.repeat(len(self._ids), 1, 1, 1)
        return self._forward(self._ids[:, shared:], positions[:, shared:], self._width)

    def _forward(self, ids: Tensor, positions: Tensor, filled: int) -> Tensor:
        """Scores of the next token `[rows, vocabulary]`; the cache then holds `filled` positions."""
        first = filled - ids.shape[1]
        found: Tensor = self._loaded.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            cache_position=torch.arange(first, filled),
            attention_mask=self._allowed(first, filled)[: len(ids)],
        ).logits[:, -1]
        return found.float()

    def _allowed(self, first: int, filled: int) -> Tensor:
        """Where queries may look, `[rows, 1, queries, filled]`."""
        keys = torch.arange(filled)
        causal = keys <= torch.arange(first, filled).unsqueeze(1)
        # A row of padding may look at itself, since a query that sees nothing gives NaN.
        own = keys == torch.arange(first, filled).unsqueeze(1)
        allowed = self._mask[:, None, :filled] & causal
        if first:
            allowed[:, :, self._width :] = True
        return (allowed | own).unsqueeze(1)

    def _draw(self, scores: Tensor) -> Tensor:
        top = scores.topk(self._plan.top_k, dim=1)
        chances = (top.values / self._plan.temperature).softmax(1)
        chosen = torch.multinomial(chances, 1, generator=self._random)
        return top.indices.gather(1, chosen).squeeze(1)

    def _keep(self, going: Tensor, places: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Leave the answers that have ended out of the batch."""
        rows = going.nonzero().squeeze(1)
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[rows].contiguous(), layer.values[rows].contiguous()
        self._mask, self._lengths = self._mask[rows], self._lengths[rows]
        return places[rows], drawn[rows]


def _opening(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts open with, one less than the shortest has at most."""
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return min(sum(1 for _ in alike), min(map(len, prompts)) - 1)


def _end_ids(loaded: LoadedModel) -> set[int]:
    configured = loaded.model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return {i for i in (*listed, loaded.tokenizer.eos_token_id) if i is not None}


def _register() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if ATTENTION not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _grouped)
        ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, _mask_as_it_is)


def _mask_as_it_is(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> Tensor | None:
    return attention_mask


def _grouped(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over the filled part of a cache of fixed size, of `[rows, heads, queries, width]`.

    Where there is one query a row, the heads that share keys and values stand beside each other as its queries.
    """
    assert attention_mask is not None
    filled = attention_mask.shape[-1]
    key, value = key[:, :, :filled], value[:, :, :filled]
    rows, heads, queries, width = query.shape
    shared = key.shape[1]
    if queries == 1:
        stacked = query.reshape(rows, shared, heads // shared, width)
        out = scaled_dot_product_attention(stacked, key, value, attn_mask=attention_mask, scale=scaling)
        return out.reshape(rows, 1, heads, width), None
    out = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2), None
