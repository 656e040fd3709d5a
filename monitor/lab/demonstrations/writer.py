"""What a model writes under clamps of features, to many prompts at once, and how far that is from its own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.lab.demonstrations.demonstration import Content, text_of
from monitor.lab.pair import Pair, need_statistics
from monitor.model.offline.edits import ByRows, Clamped
from monitor.model.offline.steered_model import Edit, SteeredModel, batches, unchanged
from monitor.model.prompts import Prompter
from monitor.records import Clamp

ROWS = 64
"""Most texts that are written at once."""
MEASURED = 10
"""Texts on which perplexity and divergence are measured: a forward pass over each costs as much as writing it."""
LOGITS = 1 << 26
"""Most logits of one pass over written texts."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written to a prompt under some clamps."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    """Tokens behind the prompt, up to the end-of-text token."""
    text: str


@dataclass(frozen=True, slots=True)
class Distance:
    """How far written texts are from what the model writes by itself, over all of their tokens."""

    perplexity: float
    """Of the texts, by the model without clamps."""
    kl: float
    """Mean KL(clamped ‖ without clamps) of the next token, nats."""


class Writer:
    """Writes to prompts under clamps. Do not use it while an engine runs the same model."""

    def __init__(self, pair: Pair, new: int, *, temperature: float, seed: int) -> None:
        """`new` tokens are written at most; the same prompt has the same luck under all clamps."""
        self._pair, self._new, self._temperature, self._seed = pair, new, temperature, seed
        self._prompter = Prompter(pair.loaded)
        self._steered = SteeredModel(pair.harvester, limit=pair.norm_limit)
        self._maximum = need_statistics(pair.dictionary).maximum
        self._edits: dict[tuple[Clamp, ...], Edit] = {}

    def prompt(self, content: Content) -> tuple[int, ...]:
        """Token ids of a prompt; a conversation becomes plain text where the model has no chat template."""
        if not isinstance(content, str) and self._pair.loaded.tokenizer.chat_template is None:
            content = text_of(content) + "\n"
        return self._prompter(content, truncate=False, room=self._new, reply=True).ids

    def write(
        self, prompts: Sequence[Content], clamps: Sequence[Sequence[Clamp]], new: int | None = None
    ) -> list[list[Written]]:
        """For each of the clamps, what is written to each prompt; `new` tokens at most where that is fewer."""
        ids = [self.prompt(content) for content in prompts]
        luck = self._luck(len(ids))[:, :new]
        rows = [(len(own), number, kind) for number, own in enumerate(ids) for kind in range(len(clamps))]
        found: dict[tuple[int, int], Written] = {}
        for batch in _batches(sorted(rows, key=lambda row: (row[0], row[2], row[1]))):
            numbers = [number for _, number, _ in batch]
            counted = [(kind, len(list(own))) for kind, own in groupby(kind for _, _, kind in batch)]
            edit = ByRows([(count, self._edit(clamps[kind])) for kind, count in counted])
            heads = torch.tensor([ids[number] for number in numbers])
            tokens = self._steered.write(heads, edit, luck[numbers], self._temperature).tolist()
            for (_, number, kind), row in zip(batch, tokens, strict=True):
                found[number, kind] = self._written(ids[number], row)
        return [[found[number, kind] for number in range(len(ids))] for kind in range(len(clamps))]

    def specificity(
        self,
        prompts: Sequence[Content],
        clamps: Sequence[Sequence[Clamp]],
        tokens: Mapping[int, float],
        new: int,
    ) -> NDArray[np.float64]:
        """How much more each of the clamps raises the logits of `tokens` than those of all others, `[clamps]`.

        In standard deviations of the change over the vocabulary, the mean over the tokens by their weights, and over
        the last token of each prompt and its plain answer of `new` tokens; 0 for no tokens and where nothing changes.
        """
        found = np.zeros(len(clamps))
        if not tokens:
            return found
        which = list(tokens)
        weights = torch.tensor([tokens[token] for token in which], dtype=torch.float64)
        for text in self.write(prompts, [()], new)[0]:
            start = len(text.prompt) - 1
            ids = torch.tensor([[*text.prompt, *text.ids]])
            plain = self._steered.read(ids, unchanged).logits[:, start:]
            rows = max(1, LOGITS // (max(1, len(self._pair.loaded.tokenizer)) * ids.shape[1]))
            for part in range(0, len(clamps), rows):
                some = clamps[part : part + rows]
                edit = ByRows([(1, self._edit(own)) for own in some])
                change = self._steered.read(ids.expand(len(some), -1), edit).logits[:, start:] - plain
                spread = change.std(-1, keepdim=True).clamp_min(1e-6)
                each = ((change[..., which] - change.mean(-1, keepdim=True)) / spread).double().cpu()
                scores = (each * weights).sum(-1).mean(-1) / weights.sum()
                found[part : part + len(some)] += scores.numpy() / len(prompts)
        return found

    def distance(self, texts: Sequence[Written], clamps: Sequence[Clamp]) -> Distance:
        """How far the first texts are that were written under clamps; NaN where they hold no token."""
        measured = [text for text in texts if text.ids][:MEASURED]
        starts = {(*text.prompt, *text.ids): len(text.prompt) for text in measured}
        surprise = divergence = 0.0
        tokens = 0
        room = max(256, LOGITS // max(1, len(self._pair.loaded.tokenizer)))
        for ids, real in batches(list(starts), room):
            lengths = real.sum(1).tolist()
            counted = real[:, 1:].clone()
            for row, length in enumerate(lengths):
                counted[row, : starts[tuple(ids[row, :length].tolist())] - 1] = False
            plain = self._log_probabilities(ids, unchanged, lengths)
            edited = self._log_probabilities(ids, self._edit(clamps), lengths) if clamps else plain
            counts, target = counted.to(plain.device), ids[:, 1:, None].to(plain.device)
            surprise -= float((plain.gather(-1, target)[..., 0] * counts).sum(dtype=torch.float64))
            each = (edited.exp() * (edited - plain)).sum(-1)
            divergence += float((each * counts).sum(dtype=torch.float64))
            tokens += int(counts.sum())
        if not tokens:
            return Distance(float("nan"), float("nan"))
        return Distance(float(torch.tensor(surprise / tokens).exp()), max(0.0, divergence / tokens))

    def _log_probabilities(self, ids: Tensor, edit: Edit, lengths: Sequence[int]) -> Tensor:
        return self._steered.read(ids, edit, lengths).logits[:, :-1].log_softmax(-1)

    def _edit(self, clamps: Sequence[Clamp]) -> Edit:
        key = tuple(clamps)
        if not key:
            return unchanged
        if key not in self._edits:
            pair = self._pair
            self._edits[key] = Clamped(
                pair.dictionary.autoencoder, self._maximum, key, pair.loaded.device, limit=pair.norm_limit
            )
        return self._edits[key]

    def _luck(self, prompts: int) -> Tensor:
        """Random numbers `[prompts, new]`; those of a prompt do not depend on how many there are."""
        make = torch.Generator().manual_seed(self._seed)
        return torch.stack([torch.rand(self._new, generator=make) for _ in range(prompts)])

    def _written(self, prompt: tuple[int, ...], row: Sequence[int]) -> Written:
        ends = self._pair.loaded.text.special_ids
        kept = row[: next((i for i, token in enumerate(row) if token in ends), len(row))]
        return Written(prompt, tuple(kept), str(self._pair.loaded.tokenizer.decode(kept)).strip())


def _batches(rows: Sequence[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Rows whose prompts are of one length, at most `ROWS` together."""
    for _, same in groupby(rows, key=lambda row: row[0]):
        left = list(same)
        while left:
            yield left[:ROWS]
            del left[:ROWS]
