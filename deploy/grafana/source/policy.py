"""Policy detail: which rule fires in which phase, and how the features behind it behave."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.source.panels import POLICY, Limits, Page, Query, rate

FEATURE = f'{POLICY}, feature=~"$feature"'


def build() -> Dashboard:
    """The dashboard."""
    page = Page(
        "sae-monitor-policy",
        "sae-monitor / Policy detail",
        "Rules of a policy and the activations of the features that they read.",
    )
    page.choice("policy", "Policy", 'label_values(sae_monitor_policy_info{job=~"$job"}, policy)')
    page.choice(
        "feature",
        "Feature",
        'label_values(sae_monitor_feature_activation_count{job=~"$job", policy=~"$policy"}, feature)',
    )
    _rules(page)
    _clamps(page)
    _features(page)
    return page.build()


def _rules(page: Page) -> None:
    page.row("Rules")
    page.lines(
        "Detections by rule",
        "Rules in shadow included.",
        Query(
            rate("sae_monitor_detections_total", POLICY, "policy", "rule", "phase", "mode"),
            "{{policy}} {{rule}}, {{phase}}, {{mode}}",
        ),
        unit="cps",
    )
    page.lines(
        "Detections per request against what is usual",
        "Usual: the policy's last day or, where that is higher, what its lock found on benign text.",
        Query(
            f"sum by (policy) (job_policy_severity_mode:sae_monitor_detections_per_request:ratio5m{{{POLICY}}})",
            "{{policy}}",
        ),
        Query(
            f"max by (policy) (job_policy:sae_monitor_detections_per_request:usual1d{{{POLICY}}})",
            "{{policy}}, usual",
        ),
        unit="percentunit",
    )
    page.bars(
        "What the locks expect on benign text",
        "Share of benign calibration texts on which each rule fires.",
        Query(f"max by (policy, rule) (sae_monitor_rule_baseline_ratio{{{POLICY}}})", "{{policy}} {{rule}}"),
        "percentunit",
        limits=Limits(0.02, 0.05),
    )
    page.lines(
        "Blocked requests",
        "Requests that a policy blocked.",
        Query(rate("sae_monitor_blocked_requests_total", POLICY, "policy"), "{{policy}}"),
        unit="reqps",
    )


def _clamps(page: Page) -> None:
    page.row("Suppression")
    page.lines(
        "Tokens run under a policy's clamps",
        "Prompt and response tokens.",
        Query(rate("sae_monitor_suppressed_tokens_total", POLICY, "policy"), "{{policy}}"),
        unit="cps",
    )
    page.lines(
        "What became of it",
        "`held`: the reading stayed down. `not_held`: not even at the clamped layer. `came_back`: a probe at a later "
        "layer found the concept again.",
        Query(rate("sae_monitor_suppressions_total", POLICY, "policy", "outcome"), "{{policy}}, {{outcome}}"),
        unit="reqps",
        stacked=True,
    )


def _features(page: Page) -> None:
    page.row("Features, in units of each feature's recorded maximum")
    page.heat(
        "Activations",
        "Readings of the chosen features per scored token. The lowest bucket is 'off'.",
        Query(
            f"sum by (le) (increase(sae_monitor_feature_activation_bucket{{{FEATURE}}}[$__rate_interval]))",
            "{{le}}",
        ),
        "short",
    )
    page.lines(
        "Mean reading per token",
        "The ten highest.",
        Query(
            f"topk(10, {rate('sae_monitor_feature_activation_sum', FEATURE, 'policy', 'feature')}"
            f" / clamp_min({rate('sae_monitor_feature_activation_count', FEATURE, 'policy', 'feature')}, 1e-9))",
            "{{policy}} {{feature}}",
        ),
        unit="short",
    )
    page.bars(
        "Highest reading",
        "Since the feature is watched; the ten highest. 1 is the maximum over the corpus.",
        Query(
            f"topk(10, max by (policy, feature) (sae_monitor_feature_activation_max{{{FEATURE}}}))",
            "{{policy}} {{feature}}",
        ),
        "short",
        limits=Limits(1, 1.5),
    )
    page.bars(
        "Density against the corpus",
        "How many times as often a feature is active now; the ten that differ most upwards.",
        Query(
            f"topk(10, max by (policy, feature) (job_policy_feature:sae_monitor_feature_drift:ratio1h{{{FEATURE}}}))",
            "{{policy}} {{feature}}",
        ),
        "short",
        limits=Limits(2, 4),
    )
