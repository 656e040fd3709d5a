"""Build responses: from records to messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from monitor.policy.policy import Policy, Rule
from monitor.policy.schema.expression import names_in
from monitor.records import (
    Clamp,
    ConditionScore,
    Coverage,
    Detection,
    Digests,
    Evidence,
    FeatureReading,
    Phase,
    RuleScore,
    ScoredTokens,
    Status,
    Suppression,
    TokenLogprobs,
    TokenSpellings,
    TokenTexts,
    Verdict,
    token_records,
)
from monitor.rpc.wire import enums
from monitor.v1 import monitor_pb2 as pb

if TYPE_CHECKING:
    from monitor.model.engine.requests import Released


class TokenFeatures(Protocol):
    """An inspected token with its strongest features."""

    @property
    def position(self) -> int:
        """Its position in the sequence, with BOS at 0."""

    @property
    def token_id(self) -> int:
        """Its id in the model's vocabulary."""

    @property
    def text(self) -> str:
        """Its text."""

    @property
    def sink(self) -> bool:
        """Whether it is an attention sink, which has no features."""

    @property
    def features(self) -> Sequence[FeatureReading]:
        """Its features in descending order of their readings."""


def digests(record: Digests) -> pb.Digests:
    """Digests of what ran."""
    return pb.Digests(model=record.model, dictionary=record.dictionary, policies=record.policies)


def coverage(record: Coverage) -> pb.Coverage:
    """How many of the tokens that ran were scored."""
    return pb.Coverage(
        tokens_run=record.tokens_run,
        tokens_scored=record.tokens_scored,
        tokens_truncated=record.tokens_truncated,
        tokens_judged=record.tokens_judged,
        tokens_sinks=record.tokens_sinks,
    )


def verdict(record: Verdict) -> pb.Verdict:
    """A verdict with all its detections."""
    return pb.Verdict(
        status=enums.STATUS[record.status],
        matched=record.matched,
        action=enums.ACTION[record.action],
        detections=[detection(found) for found in record.detections],
        scores=[_rule_score(found) for found in record.scores],
        coverage=coverage(record.coverage),
        failure="" if record.failure is None else record.failure.value,
        suppressions=[suppression(found) for found in record.suppressions],
    )


class OfText(NamedTuple):
    """The verdict on one of several texts."""

    call: str
    """Which call of a tool it is; empty for what is thought or said."""
    verdict: Verdict
    prompt: bool
    """True where it is a part of the prompt."""

    @property
    def message(self) -> pb.TextVerdict:
        """The same as a message."""
        found = verdict(self.verdict)
        del found.detections[:]
        found.detections.extend(map(self.detection, self.verdict.detections))
        return pb.TextVerdict(call=self.call, verdict=found)

    def detection(self, record: Detection) -> pb.Detection:
        """A rule that fired in it, or in the prompt before it."""
        return detection(record, self.call if self.prompt or record.phase is Phase.RESPONSE else "")


def strictest(texts: Sequence[OfText]) -> pb.Verdict:
    """The verdict on several texts. All of an answer stand behind one prompt, whose detections are told once."""
    records = [text.verdict for text in texts]
    unknown = any(record.status is Status.UNKNOWN for record in records)
    failures = (record.failure.value for record in records if record.failure is not None)
    return pb.Verdict(
        status=enums.STATUS[Status.UNKNOWN if unknown else Status.CHECKED],
        matched=any(record.matched for record in records),
        action=enums.ACTION[max(record.action for record in records)],
        detections=[
            text.detection(found)
            for number, text in enumerate(texts)
            for found in text.verdict.detections
            if text.prompt or number == 0 or found.phase is Phase.RESPONSE
        ],
        scores=[_rule_score(found) for found in _nearest(records)],
        coverage=pb.Coverage(
            tokens_run=sum(record.coverage.tokens_run for record in records),
            tokens_scored=sum(record.coverage.tokens_scored for record in records),
            tokens_truncated=sum(record.coverage.tokens_truncated for record in records),
            tokens_judged=sum(record.coverage.tokens_judged for record in records),
            tokens_sinks=sum(record.coverage.tokens_sinks for record in records),
        ),
        failure=next(failures, ""),
    )


def _nearest(records: Sequence[Verdict]) -> Iterable[RuleScore]:
    """Of each rule and phase, the score that came nearest to its threshold or went farthest beyond it."""
    found: dict[tuple[str, str, Phase], RuleScore] = {}
    for score in (score for record in records for score in record.scores):
        name = (score.policy, score.rule, score.phase)
        best = found.setdefault(name, score)
        if score.score - score.threshold > best.score - best.threshold:
            found[name] = score
    return found.values()


def suppression(record: Suppression) -> pb.Suppression:
    """Whether a policy's clamps held."""
    return pb.Suppression(
        policy=record.policy,
        features=record.features,
        tokens_edited=record.tokens_edited,
        before=record.before,
        after=record.after,
        probe_score=record.probe_score,
        probe_threshold=record.probe_threshold,
        held_at_layer=record.held_at_layer,
        came_back=record.came_back,
        held=record.held,
    )


def detection(record: Detection, call: str = "") -> pb.Detection:
    """A rule that fired; `call` is the call of a tool in which."""
    return pb.Detection(
        policy=record.policy,
        rule=record.rule,
        category=record.category,
        severity=enums.SEVERITY[record.severity],
        action=enums.ACTION[record.action],
        mode=enums.MODE[record.mode],
        phase=enums.PHASE[record.phase],
        position=record.position,
        score=record.score,
        threshold=record.threshold,
        evidence=[_evidence(token) for token in record.evidence],
        conditions=scores(record.conditions),
        call=call,
    )


def scored_tokens(parts: Iterable[ScoredTokens | None], token_texts: TokenTexts) -> list[pb.ScoredToken]:
    """Scored tokens with the readings that are not zero."""
    return [
        pb.ScoredToken(
            position=record.position,
            token_id=record.token_id,
            text=record.text,
            phase=enums.PHASE[record.phase],
            readings=_readings(record.readings),
        )
        for record in token_records(parts, token_texts)
    ]


def token_logprobs(records: Iterable[TokenLogprobs], spell: TokenSpellings) -> list[pb.TokenLogprobs]:
    """What the model held likely at tokens of a response."""
    return [
        pb.TokenLogprobs(
            position=record.position,
            text_offset=record.offset,
            token=_likely(record.token_id, record.logprob, spell),
            likeliest=[_likely(token_id, logprob, spell) for token_id, logprob in record.likeliest],
        )
        for record in records
    ]


def _likely(token_id: int, logprob: float, spell: TokenSpellings) -> pb.LikelyToken:
    spelled = spell(token_id)
    return pb.LikelyToken(token_id=token_id, text=spelled.text, data=spelled.data, logprob=logprob)


def inspected_tokens(records: Iterable[TokenFeatures]) -> list[pb.InspectedToken]:
    """Inspected tokens with their strongest features."""
    return [
        pb.InspectedToken(
            position=record.position,
            token_id=record.token_id,
            text=record.text,
            features=_readings(record.features),
        )
        for record in records
    ]


def policy(record: Policy) -> pb.Policy:
    """A loaded policy."""
    return pb.Policy(
        name=record.name,
        title=record.title,
        category=record.category,
        severity=enums.SEVERITY[record.severity],
        description=record.description,
        maturity=record.maturity,
        rules=[_rule(rule) for rule in record.rules],
        clamps=[_clamp(clamp) for clamp in record.clamps],
    )


def _rule(record: Rule) -> pb.Rule:
    return pb.Rule(
        name=record.name,
        phases=[enums.PHASE[phase] for phase in record.phases],
        action=enums.ACTION[record.action],
        mode=enums.MODE[record.mode],
        threshold=record.threshold,
        features=[feature.index for feature in record.features],
        weights=[feature.weight for feature in record.features],
        signal="" if record.signal is None else record.signal.value,
        probe=record.probe is not None,
        session=record.session,
        conditions=named(record),
    )


def _clamp(record: Clamp) -> pb.Clamp:
    return pb.Clamp(
        feature=record.feature,
        target=record.target,
        where=enums.WHERE[record.where],
        error_term=enums.ERROR_TERM[record.error_term],
    )


def _evidence(record: Evidence) -> pb.Evidence:
    return pb.Evidence(
        position=record.position,
        token_id=record.token_id,
        text=record.text,
        score=record.score,
        readings=_readings(record.readings),
        condition=record.condition,
    )


def _rule_score(record: RuleScore) -> pb.RuleScore:
    return pb.RuleScore(
        policy=record.policy,
        rule=record.rule,
        phase=enums.PHASE[record.phase],
        score=record.score,
        threshold=record.threshold,
        conditions=scores(record.conditions),
    )


def _readings(records: Iterable[FeatureReading]) -> list[pb.Reading]:
    return [
        pb.Reading(feature=record.feature, value=record.reading, value_after_clamp=record.after)
        for record in records
    ]


def messages(
    request_id: str, events: Iterable[Released], token_texts: TokenTexts, spell: TokenSpellings
) -> Iterator[pb.GenerateStreamResponse]:
    """Events of a generation as stream messages, in order. Texts and tokens between two detections become one chunk."""
    texts: list[str] = []
    tokens: list[ScoredTokens] = []
    logprobs: list[TokenLogprobs] = []

    def flush() -> Iterator[pb.GenerateStreamResponse]:
        if texts or tokens or logprobs:
            chunk = pb.Chunk(
                text="".join(texts),
                tokens=scored_tokens(tokens, token_texts),
                logprobs=token_logprobs(logprobs, spell),
            )
            yield pb.GenerateStreamResponse(request_id=request_id, chunk=chunk)
        texts.clear()
        tokens.clear()
        logprobs.clear()

    for event in events:
        if event.text:
            texts.append(event.text)
        if event.tokens is not None:
            tokens.append(event.tokens)
        logprobs += event.logprobs
        if event.detections:
            yield from flush()
        for found in event.detections:
            yield pb.GenerateStreamResponse(request_id=request_id, detection=detection(found))
    yield from flush()


def scores(records: Iterable[ConditionScore]) -> list[pb.ConditionScore]:
    """The highest scores of a rule's conditions."""
    return [
        pb.ConditionScore(
            name=found.name, score=found.score, threshold=found.threshold, reached=found.reached
        )
        for found in records
    ]


def named(rule: Rule) -> list[str]:
    """Names of the conditions in a rule's `when`, each once, in the order of writing."""
    return [] if rule.when is None else list(dict.fromkeys(name for name, _ in names_in(rule.when)))
