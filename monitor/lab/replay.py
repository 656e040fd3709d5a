"""A record of the decision log run through another policy set: from its readings, or from its text by the model.

What is read at the tapped layer depends on the tokens alone and not on clamps, so the rules see what they would have
seen. What the model would have written after another action nobody knows: a replay judges the tokens that were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from monitor.errors import BadRequest, MonitorError, Unavailable
from monitor.policy.files.loader import load_policies
from monitor.policy.policyset import PolicySet
from monitor.records import Action, Coverage, Failure, TokenBlock, Verdict
from monitor.telemetry.decisions import tokens
from monitor.telemetry.decisions.record import DecisionRecord

if TYPE_CHECKING:
    from monitor.model.engine.requests import Lease, ScoreOutcome
    from monitor.model.prompts import Prompt
    from monitor.model.runtime import Runtime

_ANY_FEATURE = 2**31
_LOOKED = 0.1
"""Seconds between two looks whether somebody still waits."""


class CannotReplay(MonitorError):
    """Why a record cannot be run again, in words for its reader."""


@dataclass
class FromReadings:
    """Replays from the readings in a record, without a model.

    Policies are resolved for the model and dictionary that the record was made with.
    """

    folder: Path
    sets: dict[tuple[str, str], PolicySet] = field(default_factory=dict)
    """Sets that are loaded already, by the digests of model and dictionary."""

    def run(self, content: Mapping[str, Any], record: DecisionRecord) -> Verdict:
        """The verdict under the policy set; CannotReplay where it reads what was not recorded."""
        policies = self._policies(record)
        columns, blocks = _read(content)
        wanted = tokens.column_names(policies.watch)
        places = _places(columns, wanted, same=policies.digest == record.digests.policies)
        observer = policies.start(str, frozenset({tokens.SPECIAL}), **_asked(content, record))
        run = scored = 0
        for block in blocks:
            if isinstance(block, Failure):
                observer.failed(block)
                run += 1
                continue
            observer.observe(TokenBlock(block.phase, block.start, block.token_ids, block.readings[:, places]))
            run, scored = run + len(block.token_ids), scored + len(block.token_ids)
        return observer.verdict(Coverage(run, scored))

    def _policies(self, record: DecisionRecord) -> PolicySet:
        key = record.digests.model, record.digests.dictionary
        if key not in self.sets:
            self.sets[key] = load_policies(
                self.folder, model_digest=key[0], dictionary_digest=key[1], features=_ANY_FEATURE
            )
        return self.sets[key]


class FromText:
    """Replays from the text in a record, by the model and the dictionary that it was made with."""

    def __init__(self, runtime: Runtime, policies: PolicySet, lease: Lease | None = None) -> None:
        """`lease` is the set's hold on the runtime; None where the runtime was made for this set."""
        self._runtime, self._policies, self._lease = runtime, policies, lease

    def run(
        self, content: Mapping[str, Any], record: DecisionRecord, gone: Callable[[], bool] = lambda: False
    ) -> Verdict:
        """The verdict under the policy set; CannotReplay where the text cannot be read.

        Prompt and response are read again; masks in the text are read as they stand. Blocks, until `gone` says that
        nobody waits any more at most.
        """
        from monitor.model.engine.requests import ScoreJob

        here = self._runtime.model_digest, self._runtime.dictionary_digest
        if here != (record.digests.model, record.digests.dictionary):
            raise CannotReplay("its text needs the model and the dictionary that it was made with")
        prompt, response = _tokenised(self._runtime, content, record)
        judge = self._policies.start(
            self._runtime.token_text, self._runtime.special_ids, **_asked(content, record)
        )
        # A server refuses such a request before it runs, where a policy is closed.
        if prompt.left_out and judge.failed(Failure.LEFT_OUT).action is Action.BLOCK:
            return judge.verdict(Coverage(0, 0, prompt.truncated))
        done: Queue[ScoreOutcome] = Queue()
        job = ScoreJob(
            record.request_id,
            (*prompt.ids, *response),
            self._policies.rules,
            judge,
            prompt=len(prompt.ids),
            lease=self._lease,
        )
        try:
            self._runtime.scorer.submit(job, lambda outcomes: done.put(outcomes[0][1]))
        except BadRequest as error:
            raise CannotReplay(f"its text could not be read: {error}") from None
        outcome = self._outcome(record.request_id, done, gone)
        if outcome.error is not None:
            raise CannotReplay(f"its text could not be read: {outcome.error}")
        return judge.verdict(outcome.coverage)

    def _outcome(self, request_id: str, done: Queue[ScoreOutcome], gone: Callable[[], bool]) -> ScoreOutcome:
        while not gone():
            with suppress(Empty):
                return done.get(timeout=_LOOKED)
            if not self._runtime.scorer.healthy() and done.empty():
                raise Unavailable("the scorer does not run")
        self._runtime.scorer.cancel(request_id)
        raise CannotReplay("nobody waits for it any more")


def ids_of(
    runtime: Runtime, content: Mapping[str, Any], record: DecisionRecord
) -> tuple[tuple[int, ...], int]:
    """Tokens of the prompt and the response in the text of a record, and how many of them the prompt has."""
    prompt, response = _tokenised(runtime, content, record)
    return (*prompt.ids, *response), len(prompt.ids)


def _tokenised(
    runtime: Runtime, content: Mapping[str, Any], record: DecisionRecord
) -> tuple[Prompt, Sequence[int]]:
    """The prompt in the text of a record, and the tokens of the response.

    Whether an answer was asked for, and so whether the template opens one, is told by the number of tokens that ran.
    CannotReplay where the model cannot be given it.
    A chat template that writes the date writes that of the record, in the time zone of this machine: run a replay in
    the server's, or a record of the hours around midnight is read with another day.
    """
    text, ran = content["text"], content.get("prompt", {}).get("tokens")
    usual = record.method != "Score"
    # The prompt was written when the request came, on the clock of the server's machine.
    at = datetime.fromtimestamp(record.time - record.seconds)
    try:
        read = [
            runtime.tokenise(text["prompt"], truncate=True, room=0, reply=reply, at=at)
            for reply in (usual, not usual)
        ]
    except BadRequest as error:  # such as of a text that masks leave nothing of
        raise CannotReplay(f"its text could not be read: {error}") from None
    prompt = next((one for one in read if len(one.ids) == ran), read[0])
    response = text.get("response", "")
    return prompt, runtime.loaded.text.inner(response, continued=True) if response.strip() else ()


def _asked(content: Mapping[str, Any], record: DecisionRecord) -> dict[str, Any]:
    """What decides which policies apply."""
    return {"caller": record.caller, "labels": content.get("labels", {}), "session": record.session}


def _read(content: Mapping[str, Any]) -> tuple[list[int | str], list[TokenBlock | Failure]]:
    try:
        return tokens.from_json(content["readings"])
    except ValueError as error:
        raise CannotReplay(str(error)) from None


def _places(columns: Sequence[int | str], wanted: Sequence[int | str], *, same: bool) -> list[int]:
    """Where each wanted column was recorded. Probes are those of the policies that they were recorded under."""
    known = {name: place for place, name in enumerate(columns) if same or not str(name).startswith("probe ")}
    missing = [name for name in wanted if name not in known]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
        raise CannotReplay(f"these policies read what was not recorded: {shown}")
    return [known[name] for name in wanted]


def differs(record: DecisionRecord, now: Verdict) -> bool:
    """True where another action would have been taken, or other rules would have fired.

    Of a request that ended before its verdict only the rules are compared.
    """
    fired = {(d.policy, d.rule, d.phase) for d in record.detections}
    if fired != {(d.policy, d.rule, d.phase) for d in now.detections}:
        return True
    concluded = record.outcome in ("answered", "refused")
    return concluded and (record.action != now.action or record.status is not now.status)


def stronger(record: DecisionRecord, now: Verdict) -> int:
    """1 where the action would have been stronger, -1 where weaker, 0 where the same."""
    return (now.action > record.action) - (now.action < record.action)
