"""Label sets of policies: there from the start, renewed on reload, never back from the dead."""

import pytest
from prometheus_client import CollectorRegistry

from monitor.policy.policyset import PolicySet
from monitor.records import Action, Coverage, Detection, Mode, Phase, Severity, Status, Suppression, Verdict
from monitor.telemetry.metrics.labels import trace_id
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.metrics.policies import OUTCOMES
from tests.children import beside, four_at_once
from tests.rpc.fake import policies, policy


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"sae_monitor_{name}", labels)


def series(metrics):
    """Names and labels of everything that carries the name of a policy."""
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in metrics.registry.collect()
        for sample in family.samples
        if "policy" in sample.labels
    }


def of(*chosen):
    return PolicySet(tuple(chosen), "sha256:" + "d" * 64)


def detection(name, phase=Phase.PROMPT, action=Action.BLOCK):
    return Detection(name, "word", name, Severity.HIGH, action, Mode.ENFORCE, phase, 3, 1.0, 0.5)


def test_every_label_set_is_there_before_anything_happens(metrics):
    metrics.policies_changed(policies())
    labels = {"rule": "word", "category": "weapons", "severity": "high", "action": "block", "mode": "enforce"}
    for phase in Phase:
        assert value(metrics, "detections_total", policy="weapons", phase=phase.value, **labels) == 0
    assert value(metrics, "blocked_requests_total", policy="weapons") == 0
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 0
    for outcome in OUTCOMES:
        assert value(metrics, "suppressions_total", policy="deception", outcome=outcome) == 0
    assert value(metrics, "feature_activation_count", policy="deception", feature="7") == 0
    assert value(metrics, "policy_fail_open", policy="deception") == 0
    assert value(metrics, "policies_reloads_total", result="success") == 1


@pytest.mark.parametrize(
    ("after", "score", "outcome"),
    [(0.0, None, "held"), (0.05, 0.2, "held"), (0.5, 0.9, "not_held"), (0.0, 0.9, "came_back")],
)
def test_a_suppression_is_counted_by_what_became_of_it(metrics, after, score, outcome):
    metrics.policies_changed(policies())
    seen = Suppression("deception", (7,), 12, 1.0, after, score, None if score is None else 0.5)
    metrics.judged(Verdict(Status.CHECKED, Action.SUPPRESS, Coverage(9, 9), suppressions=(seen,)))
    found = {
        name: value(metrics, "suppressions_total", policy="deception", outcome=name) for name in OUTCOMES
    }
    assert found == dict.fromkeys(OUTCOMES, 0) | {outcome: 1}


def test_a_reload_leaves_exactly_the_label_sets_of_the_new_policies(metrics):
    metrics.policies_changed(policies())
    metrics.detected(detection("weapons"))
    metrics.detected(detection("deception", action=Action.SUPPRESS))
    changed = of(policy("weapons", 9, Action.BLOCK, closed=False), policy("bias", 5, Action.ALERT))
    metrics.policies_changed(changed)
    fresh = Metrics(CollectorRegistry())
    fresh.policies_changed(changed)
    assert series(metrics) == series(fresh)
    labels = {"rule": "word", "category": "weapons", "severity": "high", "action": "block", "mode": "enforce"}
    assert value(metrics, "detections_total", policy="weapons", phase="prompt", **labels) == 1
    assert value(metrics, "policy_fail_open", policy="weapons") == 1
    assert value(metrics, "policies_reloads_total", result="success") == 2


def test_a_request_that_ends_on_a_replaced_policy_brings_no_label_set_back(metrics):
    metrics.policies_changed(policies())
    metrics.policies_changed(of(policy("bias", 5, Action.ALERT)))
    before = series(metrics)
    metrics.detected(detection("weapons"))
    metrics.blocked("weapons")
    metrics.suppressed("deception", 4)
    assert series(metrics) == before
    assert value(metrics, "retired_policy_events_total") == 6


def test_a_failed_reload_shows_and_changes_nothing_else(metrics):
    metrics.policies_changed(policies())
    before, when = series(metrics), value(metrics, "policies_last_reload_success_timestamp_seconds")
    metrics.reload_failed()
    assert value(metrics, "policies_last_reload_success") == 0
    assert value(metrics, "policies_reloads_total", result="failure") == 1
    assert value(metrics, "policies_last_reload_success_timestamp_seconds") == when
    assert series(metrics) == before
    metrics.policies_changed(policies())
    assert value(metrics, "policies_last_reload_success") == 1


def test_the_locks_baseline_is_shown_where_there_is_one(metrics):
    from dataclasses import replace

    plain = policy("weapons", 9, Action.BLOCK)
    fitted = replace(plain, rules=(replace(plain.rules[0], benign_rate=0.01),))
    metrics.dictionary_expected(31.5, None, [0.25] * 16)
    metrics.policies_changed(of(fitted, policy("bias", 5, Action.ALERT)))
    assert value(metrics, "rule_baseline_ratio", policy="weapons", rule="word") == 0.01
    assert value(metrics, "rule_baseline_ratio", policy="bias", rule="word") is None
    assert value(metrics, "feature_density_baseline_ratio", policy="bias", feature="5") == 0.25
    assert value(metrics, "dictionary_l0_expected") == 31.5


def test_the_limit_on_label_sets_holds(metrics):
    small = Metrics(CollectorRegistry(), feature_limit=1)
    small.policies_changed(policies())
    shown = {dict(labels)["feature"] for name, labels in series(small) if name.endswith("activation_count")}
    assert shown == {"9", "other"}
    assert value(small, "feature_label_sets_folded", policy="deception") == 1


def test_detections_carry_the_trace_that_they_are_given(metrics):
    metrics.policies_changed(policies())
    metrics.detected(detection("weapons"), {"trace_id": "a" * 32})
    token = trace_id.set("b" * 32)
    metrics.detected(detection("weapons", Phase.RESPONSE))
    trace_id.reset(token)
    found = {
        sample.labels["phase"]: sample.exemplar
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "sae_monitor_detections_total" and sample.labels["policy"] == "weapons"
    }
    assert found["prompt"].labels == {"trace_id": "a" * 32}
    assert found["response"] is None


def test_nothing_is_lost_between_threads_and_reloads(metrics):
    sets = [policies(), of(policy("bias", 5, Action.ALERT)), policies(closed=False)]
    metrics.policies_changed(sets[0])

    def count():
        for _ in range(2000):
            metrics.blocked("bias")
            metrics.suppressed("deception", 2)

    def reload():
        for chosen in sets:
            metrics.policies_changed(chosen)

    def scrape():
        assert list(metrics.registry.collect())

    # Only one policy set: every event must be somewhere, by name or as retired.
    metrics.policies_changed(of(policy("bias", 5, Action.ALERT), policy("deception", 7, Action.ALERT)))
    with beside(scrape):
        four_at_once(count)
    assert value(metrics, "blocked_requests_total", policy="bias") == 8000
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 16000

    with beside(reload):
        four_at_once(count)
    metrics.policies_changed(sets[0])
    fresh = Metrics(CollectorRegistry())
    fresh.policies_changed(sets[0])
    assert series(metrics) == series(fresh)
