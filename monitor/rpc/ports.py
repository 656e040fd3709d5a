"""Protocols that the server expects a model and a policy set to implement.

`monitor.model` and `monitor.policy` implement them, and so do the fakes in tests. Another engine can take their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from monitor.model.engine.requests import Done, Emit, GenerationRequest, Lease, Read, ScoreJob, StreamJob
from monitor.model.prompts import Content
from monitor.policy.policy import Policy
from monitor.records import (
    Clamp,
    Coverage,
    Decision,
    Detection,
    Failure,
    Observer,
    SuppressionNeeds,
    TokenSpellings,
    TokenText,
    TokenTexts,
    Verdict,
    WatchPlan,
)
from monitor.rpc.wire.responses import TokenFeatures
from monitor.telemetry.decisions.trail import JudgedRequest
from monitor.telemetry.metrics.server_state import Sessions


class TokenisedPrompt(Protocol):
    """A tokenised input."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids, BOS included."""

    @property
    def truncated(self) -> int:
        """Number of tokens that were dropped from the front to fit the context."""

    @property
    def left_out(self) -> int:
        """Number of texts of the input that are not in it, which makes the verdict UNKNOWN."""


class GenerationEngine(Protocol):
    """Generates text for many requests at once."""

    @property
    def why_separate(self) -> str:
        """Why every pass runs one request only, as a phrase; empty where passes run many requests together."""

    def submit(self, request: GenerationRequest, emit: Emit) -> None:
        """Queue a request. `emit` is called with its events on the engine's own thread.

        Raises Overloaded where the queue is full and Unavailable where the engine does not run.
        """

    def cancel(self, request_id: str) -> None:
        """End a request at the next pass; an unknown id is ignored."""

    def queue_depth(self) -> int:
        """Number of requests that wait."""

    def running(self) -> int:
        """Number of requests that run."""

    def cache_used(self) -> float:
        """Share of the key-value cache that requests hold, from 0 to 1."""

    def passes(self) -> int:
        """Number of forward passes since the start."""

    def healthy(self) -> bool:
        """False once it cannot serve any more."""


class ScoringEngine(Protocol):
    """Scores texts without generating."""

    def submit(self, job: ScoreJob, done: Done) -> None:
        """Queue a text. `done` is called with the outcome on the scorer's own thread.

        Raises Overloaded where the queue is full and Unavailable where the scorer does not run.
        """

    def cancel(self, request_id: str) -> None:
        """Drop a job; an unknown id is ignored."""

    @property
    def why_whole(self) -> str:
        """Why texts cannot be read in parts, as a phrase; empty where they can."""

    def open_stream(self, job: StreamJob, read: Read) -> None:
        """Begin a sequence that is read as it grows. `read` is called with how far, on the scorer's own thread.

        Raises Overloaded where there is no room, Unavailable where the scorer does not run, and BadRequest where texts
        cannot be read in parts.
        """

    def feed(self, request_id: str, ids: Sequence[int], *, response: bool) -> None:
        """Append tokens, of the prompt or of the response. Raises TooLong where the model can read no more."""

    def end_stream(self, request_id: str) -> None:
        """Forget a stream; an unknown id is ignored. To be called in every case."""

    def queue_depth(self) -> int:
        """Number of jobs that wait."""

    def running(self) -> int:
        """Number of jobs that run."""

    def passes(self) -> int:
        """Number of forward passes since the start."""

    def healthy(self) -> bool:
        """False once it cannot serve any more."""


class ModelRuntime(Protocol):
    """A model with its dictionary, ready to generate, score and inspect."""

    @property
    def engine(self) -> GenerationEngine:
        """The engine that generates."""

    @property
    def scorer(self) -> ScoringEngine:
        """The scorer."""

    @property
    def context(self) -> int:
        """Maximum number of tokens of a request, prompt and response together."""

    @property
    def longest_token(self) -> int:
        """Bytes of text that one token stands for at the most."""

    @property
    def model_digest(self) -> str:
        """`sha256:` over the model's files."""

    @property
    def dictionary_digest(self) -> str:
        """`sha256:` over the dictionary's files."""

    def start(self) -> None:
        """Start the engine and the scorer."""

    def stop(self, grace: float) -> None:
        """Refuse new requests, wait up to `grace` seconds for running ones, end the rest. Blocks."""

    def tokenise(self, content: Content, *, truncate: bool, room: int, reply: bool) -> TokenisedPrompt:
        """Tokenise a text or a conversation, leaving `room` tokens of the context free.

        `reply` ends a conversation with the header of the assistant's message. Raises BadRequest with field names
        relative to `Input`; TooLong where the prompt does not fit and `truncate` is False.
        """

    def prepare(self, needs: SuppressionNeeds) -> None:
        """Load what a policy set's suppression needs besides slots. Raises MonitorError where that is not possible."""

    def lease(self, watch: WatchPlan, clampable: Sequence[int]) -> Lease:
        """Reserve slots for what a policy set reads and clamps. Raises ConfigurationError where too few are free."""

    def first_lease(self) -> Lease:
        """The lease of the policy set that the runtime was constructed with."""

    def unscored_passes(self) -> int:
        """Number of passes since the start in which a token could not be scored."""

    def can_see(self) -> bool:
        """True where tokens are scored now: passes since the last fault show it, or a few tokens do. Blocks."""

    def check_clamps(self, clamps: Sequence[Clamp]) -> None:
        """Raise BadRequest, with fields such as `clamps[0].feature`, where a clamp cannot be applied."""

    def inspect(self, ids: Sequence[int], top_k: int, gone: Callable[[], bool]) -> Sequence[TokenFeatures]:
        """The `top_k` strongest features of every token, by a full encode. Blocks, until `gone` is True at most."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens, such as BOS and the markers between chat messages."""

    @property
    def token_text(self) -> TokenText:
        """A function from a token id to its text."""

    def placed(self, text: str) -> Sequence[tuple[int, int]]:
        """Where each token of a text stands in it: its first character, and the first behind it. (0, 0): nowhere."""

    def placed_behind(self, token: int, text: str) -> tuple[Sequence[int], Sequence[tuple[int, int]]]:
        """Token ids of a text that stands behind a token, and where each stands in it. Raises InputError."""

    @property
    def token_spelling(self) -> TokenSpellings:
        """A function from a token id to its spelling."""

    @property
    def token_texts(self) -> TokenTexts:
        """A function from consecutive token ids to their texts."""

    def respelled(self, found: Detection, ids: Sequence[int]) -> Detection:
        """A detection whose evidence shows whole characters where tokens are parts of them. `ids`: of the request."""


class RequestJudge(JudgedRequest, Protocol):
    """A request under its rules, which also give its verdict."""

    def failed(self, cause: Failure) -> Decision:
        """Tokens could not be scored; the first cause is kept."""

    def verdict(self, coverage: Coverage) -> Verdict:
        """The verdict so far; UNKNOWN unless every token that ran was scored."""


class LoadedPolicies(Protocol):
    """A policy set that was loaded for one model and dictionary."""

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies, in the order of their names."""

    @property
    def digest(self) -> str:
        """`sha256:` over the policy files."""

    @property
    def watch(self) -> WatchPlan:
        """What the rules read: features, probes and signals, in the order of the readings' columns."""

    @property
    def rules(self) -> Observer:
        """What scores the tokens of all requests under these policies."""

    @property
    def sessions(self) -> Sessions:
        """The scores kept for conversations."""

    @property
    def clampable(self) -> tuple[int, ...]:
        """Features that a policy may clamp."""

    @property
    def suppression(self) -> SuppressionNeeds:
        """What the policies' suppression needs of a running model."""

    def applying(self, caller: str, labels: Mapping[str, str]) -> frozenset[str]:
        """Names of the policies that apply to a request of this caller with these labels."""

    def start(
        self,
        token_text: TokenText,
        special: frozenset[int] = frozenset(),
        *,
        caller: str = "",
        labels: Mapping[str, str] | None = None,
        session: str = "",
    ) -> RequestJudge:
        """The rules in their initial state, for one request. `session` names its conversation; empty for none."""
