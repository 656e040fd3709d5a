"""What stands around a watched engine for users: eleven policies, metrics and the decision log.

Of a pair that has a name the policies are the shipped ones; of any other model as many of the same shape, on features
that are active, with thresholds that nothing reaches.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monitor.bench.models import Subject
from monitor.dictionary.bundle import load_dictionary
from monitor.model.engine.requests import Finished
from monitor.model.tap.bank import FeatureBank
from monitor.pairs.named_pair import NamedPair
from monitor.policy.files.loader import load_policies
from monitor.policy.policy import Policy, Rule, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.observer import RequestRules
from monitor.policy.schema.policy import Ema
from monitor.records import Action, Digests, Mode, Phase, Severity
from monitor.rpc.assembly import bundled_policies
from monitor.telemetry.decisions import record
from monitor.telemetry.decisions.folder import Retention
from monitor.telemetry.decisions.log import DecisionLog
from monitor.telemetry.decisions.trail import Trail, Trails
from monitor.telemetry.decisions.writer import LogWriter, Rotation
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.metrics.observer import MeteredObserver

POLICIES, FEATURES, HALF_LIFE = 11, 47, 12.0
"""Of the shipped set: how many there are, how many features each reads, and how it pools."""
_LENGTHS = ((16, 90.0), (48, 80.0), (128, 70.0), (None, 60.0))


def policies_for(subject: Subject) -> PolicySet:
    """The policies that a subject is watched with; where they would block or suppress, they alert.

    Random tokens resemble nothing that rules are fitted to. A rule that ended a request, or clamped it, would make
    variants compute different things.
    """
    if subject.pair is not None:
        return _alerting(shipped(subject, subject.pair))
    alive = np.flatnonzero(subject.maximum.numpy() > 0)
    chance = np.random.default_rng(0)
    picked = [chance.choice(alive, min(FEATURES, len(alive)), replace=False) for _ in range(POLICIES)]
    return PolicySet(tuple(_policy(n, [int(f) for f in mine]) for n, mine in enumerate(picked)), "")


def bank_for(subject: Subject, policies: PolicySet) -> FeatureBank:
    """The features, probes and signals that the policies read on a subject, on its device."""
    return FeatureBank(
        subject.autoencoder,
        subject.maximum,
        policies.watch.features,
        policies.clampable,
        plan=policies.watch,
        device=subject.loaded.device,
    )


def shipped(subject: Subject, pair: NamedPair) -> PolicySet:
    """The policies that come with the project, with their locks for a pair."""
    found = load_dictionary(pair.dictionary_path())
    name = subject.loaded.name
    return load_policies(
        bundled_policies(),
        dictionary_digest=found.digest,
        model_digest=subject.loaded.digest,
        features=found.autoencoder.features,
        maxima=subject.maximum.tolist(),
        width=subject.loaded.d_model,
        names=(name, Path(name).name),
        pair=pair.name,
    )


def _alerting(found: PolicySet) -> PolicySet:
    policies = (
        replace(
            policy,
            rules=tuple(replace(rule, action=min(rule.action, Action.ALERT)) for rule in policy.rules),
        )
        for policy in found.policies
    )
    return PolicySet(tuple(policies), found.digest, notes=found.notes)


def _policy(number: int, features: list[int]) -> Policy:
    read = tuple(WeightedFeature(feature, 1.0 / len(features)) for feature in features)
    rule = Rule(
        "stated",
        (Phase.PROMPT, Phase.RESPONSE),
        read,
        Ema(half_life=HALF_LIFE),
        1,
        _LENGTHS[-1][1],
        Severity.LOW,
        Action.ALERT,
        Mode.ENFORCE,
        lengths=_LENGTHS,
    )
    return Policy(f"p{number}", "", "bench", Severity.LOW, "", "experimental", (rule,))


@dataclass
class Watch:
    """Policies with their metrics and a decision log that takes every request."""

    policies: PolicySet
    metered: MeteredObserver
    observer: Trails
    """What the engine is given."""
    log: DecisionLog

    def open(self) -> tuple[RequestRules, Trail]:
        """A request begins."""
        judge = self.policies.start(str)
        self.metered.open(judge)
        return judge, self.observer.open(judge)

    def close(self, request_id: str, judge: RequestRules, end: Finished) -> None:
        """A request has ended: its decision goes to the log."""
        verdict = judge.verdict(end.coverage)
        made = record.DecisionRecord(
            request_id=request_id,
            time=time.time(),
            seconds=0.0,
            method="Generate",
            outcome="answered",
            status=verdict.status,
            action=verdict.action,
            digests=Digests("", "", ""),
            coverage=verdict.coverage,
            detections=verdict.detections,
            scores=verdict.scores,
            failure=verdict.failure,
            finish=end.reason.value,
            tokens_generated=end.tokens_generated,
        )
        self.log.append(lambda: record.to_json(made))


@contextmanager
def watching(policies: PolicySet) -> Iterator[Watch]:
    """All of it, as it stands around an engine that serves."""
    metrics = Metrics()
    metered = MeteredObserver(policies.rules, metrics, metrics.policies_changed(policies))
    with tempfile.TemporaryDirectory() as folder:
        writer = LogWriter(Path(folder), Rotation(), Retention())
        log = DecisionLog(writer, "drop", metrics.decision_log)
        try:
            yield Watch(policies, metered, Trails(metered), log)
        finally:
            log.close()
