"""All rules of a policy set on many requests, in one pass of the model over each: the highest pooled scores by length.

Nothing else is kept of what the model read, so a million tokens fit into little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.dictionary.training.progress import WorkLines
from monitor.errors import BadRequest, InputError, PolicyError
from monitor.lab.budget.requests import BenignRequest
from monitor.lab.pair import Pair
from monitor.lab.readings import BATCH_TOKENS, PairReader
from monitor.model.prompts import Prompter
from monitor.policy.fit.lengths import EDGES, NEVER
from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.pooling import Extent
from monitor.policy.rules.program import Program, compile_program
from monitor.policy.rules.state import blank
from monitor.policy.rules.weights import active
from monitor.records import Phase, TokenBlock

Bools = NDArray[np.bool_]
Rows = NDArray[np.float32]
ROOM = 0.5
"""Share of the context that a prompt may take up where a response follows it."""


@dataclass(frozen=True)
class SetScores:
    """What a policy set scored on some requests. A part is the prompt or the response of a request."""

    program: Program
    best: Floats
    """`[parts, checks, buckets]`: highest pooled score in each length; minus infinity where there is none."""
    combined: Bools
    """`[parts, combined rules, buckets]`: in which length rules that combine conditions fire."""
    lengths: Indices
    """`[parts]` tokens that rules look at."""
    responses: Bools
    """`[parts]` True for a response."""
    requests: Indices
    """`[parts]` the number of the request that it belongs to. Prompt and response of a text that may be either count as
    two requests."""
    sources: Indices
    """`[parts]` the place of the request among those that were given."""


@dataclass(frozen=True)
class _Tokens:
    """A request as the model reads it."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens."""
        return self.prompt + self.response


def score_set(
    pair: Pair, policies: PolicySet, requests: Sequence[BenignRequest], tell: Callable[[str], None]
) -> SetScores:
    """Score requests by every rule and condition of a set, each in the phases that it looks at and in all others.

    Attention sinks and control tokens are passed over, as in serving. Raises PolicyError where a score is no number,
    and InputError where the model's chat template refuses a conversation.
    """
    work = _SetScoring(pair, policies)
    for number, prompt, response in work.read(requests, tell):
        work.add(number, requests[number], prompt, response)
    return work.result()


class _SetScoring:
    """The scores of the requests that were read so far."""

    def __init__(self, pair: Pair, policies: PolicySet) -> None:
        self._pair, self._policies = pair, policies
        self._program = compile_program(policies.policies)
        self._reader = PairReader(pair)
        self._prompter = Prompter(pair.loaded)
        self._special = torch.tensor(sorted(pair.loaded.text.special_ids), dtype=torch.long)
        self._parts: list[tuple[int, int, bool, int, Floats, Bools]] = []
        self._requests = 0

    def read(
        self, requests: Sequence[BenignRequest], tell: Callable[[str], None]
    ) -> Iterator[tuple[int, Rows, Rows]]:
        """Readings `[tokens, watched]` of what rules look at in prompt and response, request by request."""
        tokens = [self._tokens(request) for request in requests]
        advance = WorkLines("scoring benign texts", sum(len(one.ids) for one in tokens), "tokens", tell)
        for which in _batches([len(one.ids) for one in tokens]):
            lengths = [len(tokens[i].ids) for i in which]
            ids = torch.zeros(len(which), max(lengths), dtype=torch.long)
            for row, i in enumerate(which):
                ids[row, : lengths[row]] = torch.tensor(tokens[i].ids)
            residual = self._pair.residuals(ids, lengths)
            kept = ~self._pair.sinks(residual) & ~torch.isin(ids, self._special).to(residual.device)
            for row, i in enumerate(which):
                mine = kept[row, : lengths[row]]
                found = self._reader.columns(residual[row, : lengths[row]][mine], self._program.watch)
                ends = int(mine[: len(tokens[i].prompt)].sum())
                yield i, found[:ends], found[ends:]
            advance(sum(lengths))

    def _tokens(self, request: BenignRequest) -> _Tokens:
        loaded = self._pair.loaded
        said = loaded.text.inner(request.response, continued=True) if request.response else []
        room = min(len(said), int(ROOM * loaded.context))
        if isinstance(request.prompt, str):
            asked = tuple(self._pair.ids(request.prompt)[: loaded.context - room])
        else:
            try:
                asked = self._prompter(request.prompt, truncate=True, room=room, reply=True).ids
            except BadRequest as error:
                raise InputError(f"a benign conversation (group {request.group!r}): {error}") from None
        return _Tokens(asked, tuple(said[: loaded.context - len(asked)]))

    def add(self, number: int, request: BenignRequest, prompt: Rows, response: Rows) -> None:
        """Score one request from its readings."""
        combined = self._combined(prompt, response)
        self._part(number, prompt, combined[0], response=False)
        if request.response:
            self._part(number, response, combined[1], response=True)
        self._requests += 1
        if request.either:
            self._part(number, prompt, self._combined(prompt[:0], prompt)[1], response=True)
            self._requests += 1

    def _part(self, number: int, rows: Rows, combined: Bools, *, response: bool) -> None:
        program = self._program
        if not np.isfinite(rows).all():
            raise PolicyError(
                "a text scores NaN; verify model and dictionary: `sae-monitor dictionary verify`"
            )
        scores = program.weights.scored(active(rows)).scores
        pooled = scores
        if len(scores):
            pooled = program.pools.push(blank(program, 1), scores[:, None], Extent(np.zeros(1, np.int64)))[
                :, 0
            ]
        self._parts.append((self._requests, number, response, len(rows), _highest(pooled), combined))

    def _combined(self, prompt: Rows, response: Rows) -> tuple[Bools, Bools]:
        """`[combined rules, buckets]`: in which length of the prompt, and of the response, each combined rule fires."""
        program = self._program
        shape = (len(program.combined), len(EDGES) + 1)
        found = np.zeros(shape, bool), np.zeros(shape, bool)
        if not len(program.combined):
            return found
        # Position 0 is a sink in every sequence.
        prompt = np.concatenate([np.zeros((1, len(program.watch)), np.float32), prompt])
        running = self._policies.start(str)
        names = {(program.owners[i].name, program.rules[i].name): n for n, i in enumerate(program.combined)}
        for phase, start, rows, out in (
            (Phase.PROMPT, 0, prompt, found[0]),
            (Phase.RESPONSE, len(prompt), response, found[1]),
        ):
            block = TokenBlock(phase, start, tuple(range(len(rows))), rows)
            for detection in running.observe(block).detections if len(rows) else ():
                n = names.get((detection.policy, detection.rule))
                if n is not None:
                    count = detection.position - start + (1 if start else 0)
                    out[n, np.searchsorted(EDGES, count, side="left")] = True
        return found

    def result(self) -> SetScores:
        """Everything, in the order of the requests."""
        parts = sorted(self._parts, key=lambda part: (part[1], part[0], part[2]))
        requests, sources, responses, lengths, best, combined = zip(*parts, strict=True)
        return SetScores(
            program=self._program,
            best=np.stack(best),
            combined=np.stack(combined),
            lengths=np.asarray(lengths, np.intp),
            responses=np.asarray(responses, bool),
            requests=np.asarray(requests, np.intp),
            sources=np.asarray(sources, np.intp),
        )


def _highest(pooled: Floats) -> Floats:
    """`[checks, buckets]`: the highest of pooled scores `[tokens, checks]` in each length."""
    out = np.full((pooled.shape[1], len(EDGES) + 1), NEVER)
    for bucket, (start, end) in enumerate(zip((0, *EDGES), (*EDGES, None), strict=True)):
        if len(part := pooled[start:end]):
            out[:, bucket] = part.max(axis=0)
    return out


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Requests of like length together, the longest first."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    while order:
        count = max(1, BATCH_TOKENS // max(lengths[order[-1]], 1))
        yield order[-count:]
        del order[-count:]
