"""What the servicer needs of the model and of the policies, and nothing more.

`monitor.model.runtime` and `monitor.policy` implement these; tests put something else in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from monitor.model.engine.requests import Done, Emit, GenerationRequest, Lease, ScoreJob
from monitor.model.prompts import Content
from monitor.policy.policy import Policy
from monitor.records import (
    Clamp,
    Coverage,
    Decision,
    Failure,
    Observer,
    SuppressionNeeds,
    TokenText,
    Verdict,
    WatchPlan,
)
from monitor.rpc.wire.responses import InspectedToken
from monitor.telemetry.decisions.trail import Judged
from monitor.telemetry.metrics.sessions import Sessions


class Prompt(Protocol):
    """A tokenised input."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids, BOS included."""

    @property
    def truncated(self) -> int:
        """Tokens that were dropped from the front."""


class Engine(Protocol):
    """Generates. `submit` raises Overloaded or Unavailable; events come on the engine's own thread."""

    @property
    def why_separate(self) -> str:
        """Why each pass runs one request; empty where passes run many together."""

    def submit(self, request: GenerationRequest, emit: Emit) -> None:
        """Queue a request."""

    def cancel(self, request_id: str) -> None:
        """End a request at the next step; nothing happens where it is not known."""

    def queue_depth(self) -> int:
        """Requests that wait."""

    def running(self) -> int:
        """Requests in the batch."""

    def passes(self) -> int:
        """Forward passes since the start."""

    def healthy(self) -> bool:
        """False once it cannot serve any more."""


class Scorer(Protocol):
    """Scores without generating. `submit` raises Overloaded or Unavailable."""

    def submit(self, job: ScoreJob, done: Done) -> None:
        """Queue a job."""

    def cancel(self, request_id: str) -> None:
        """Forget a job; nothing happens where it is not known."""

    def queue_depth(self) -> int:
        """Jobs that wait."""

    def running(self) -> int:
        """Jobs in the batch."""

    def passes(self) -> int:
        """Passes that ended since the start."""

    def healthy(self) -> bool:
        """False once it cannot serve any more."""


class Runtime(Protocol):
    """A model with its dictionary, ready to run."""

    @property
    def engine(self) -> Engine:
        """Generates."""

    @property
    def scorer(self) -> Scorer:
        """Scores."""

    @property
    def context(self) -> int:
        """Most tokens of a request, prompt and response together."""

    @property
    def model_digest(self) -> str:
        """`sha256:` over the model's files."""

    @property
    def dictionary_digest(self) -> str:
        """`sha256:` over the dictionary's files."""

    def start(self) -> None:
        """Begin to run."""

    def stop(self, grace: float) -> None:
        """Refuse new work, let what runs finish for `grace` seconds, end the rest. Blocks."""

    def tokenise(self, content: Content, *, truncate: bool, room: int, reply: bool) -> Prompt:
        """Token ids of a text or a conversation, leaving `room` tokens of the context free.

        `reply` opens the assistant's turn. Raises BadRequest (TooLong where it does not fit and `truncate` is
        False) with field names relative to the Input message.
        """

    def prepare(self, needs: SuppressionNeeds) -> None:
        """Hold what a policy set's suppression needs besides columns; a MonitorError where it cannot be had."""

    def hold(self, watch: WatchPlan, clampable: Sequence[int]) -> Lease:
        """Room for what a policy set reads and clamps. Raises ConfigurationError where it does not fit."""

    def first_lease(self) -> Lease:
        """The hold of the policy set that it was made for."""

    def unscored_passes(self) -> int:
        """Passes since the start of which something could not be scored."""

    def can_see(self) -> bool:
        """True where a few tokens can be scored and generated now. Blocks; called on a thread."""

    def check_clamps(self, clamps: Sequence[Clamp]) -> None:
        """BadRequest with fields such as `clamps[0].feature` where a feature is unknown or was never active."""

    def inspect(self, ids: Sequence[int], top_k: int) -> Sequence[InspectedToken]:
        """The strongest features of every token, by a full encode. Blocks; called on a thread."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that stand for no text: BOS, ends of turns."""

    @property
    def token_text(self) -> TokenText:
        """The text of one token id."""


class Judge(Judged, Protocol):
    """A request whose rules also say what they make of the whole of it."""

    def failed(self, cause: Failure) -> Decision:
        """Tokens could not be scored; the first cause is kept."""

    def verdict(self, coverage: Coverage) -> Verdict:
        """UNKNOWN unless every token that ran was scored."""


class PolicySet(Protocol):
    """The loaded policies."""

    @property
    def policies(self) -> tuple[Policy, ...]:
        """In the order of their names."""

    @property
    def digest(self) -> str:
        """`sha256:` over their files."""

    @property
    def watch(self) -> WatchPlan:
        """Features that they read, in column order."""

    @property
    def rules(self) -> Observer:
        """What scores the tokens of all requests under these policies."""

    @property
    def sessions(self) -> Sessions:
        """What is kept of conversations."""

    @property
    def clampable(self) -> tuple[int, ...]:
        """Features that some policy clamps."""

    @property
    def suppression(self) -> SuppressionNeeds:
        """What suppression needs of a running model."""

    def start(
        self,
        token_text: TokenText,
        special: frozenset[int] = frozenset(),
        *,
        caller: str = "",
        labels: Mapping[str, str] | None = None,
        session: str = "",
    ) -> Judge:
        """Rules at their beginning, for one request of a caller, which may belong to a session."""
