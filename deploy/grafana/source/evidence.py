"""Evidence and drift: is everything on record, and do numbers still mean what they did when policies were fitted."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.source.panels import JOB, Limits, Page, Query, quantile, rate

DICTIONARY = "sae_monitor_dictionary"


def build() -> Dashboard:
    """The dashboard."""
    page = Page(
        "sae-monitor-evidence",
        "sae-monitor / Evidence and drift",
        "The decision log, what was not scored, drift of features, and the dictionary's health.",
    )
    _log(page)
    _writes(page)
    _sight(page)
    _drift(page)
    _dictionary(page)
    return page.build()


def _log(page: Page) -> None:
    page.row("Decision log")
    page.yes(
        "Decisions are logged",
        "Whether the log is on, on every sidecar.",
        f"min(sae_monitor_decision_log_enabled{{{JOB}}})",
    )
    page.number(
        "Records lost",
        "In the time shown. Anything but zero needs a reason.",
        f"sum(increase(sae_monitor_decision_log_dropped_total{{{JOB}}}[$__range]))",
        "short",
        Limits(0.5, 1),
    )
    page.number(
        "Failed writes",
        "In the time shown, together with files that others took away or changed.",
        f"sum(increase(sae_monitor_decision_log_errors_total{{{JOB}}}[$__range]))"
        f" + sum(increase(sae_monitor_decision_log_displaced_files_total{{{JOB}}}[$__range]))",
        "short",
        Limits(0.5, 1),
    )
    page.yes(
        "Policies as on disk",
        "No: the last reload failed somewhere, and an older set is in force there.",
        f"min(sae_monitor_policies_last_reload_success{{{JOB}}})",
    )
    page.number(
        "Age of the policies",
        "Since the last good load.",
        f"max(time() - sae_monitor_policies_last_reload_success_timestamp_seconds{{{JOB}}})",
        "s",
    )
    page.number(
        "Events on replaced policies",
        "Detections and blocks of requests that ended after their policies were replaced.",
        f"sum(increase(sae_monitor_retired_policy_events_total{{{JOB}}}[$__range]))",
        "short",
    )


def _writes(page: Page) -> None:
    page.lines(
        "Records",
        "Written and synced, per second.",
        Query(rate("sae_monitor_decision_log_records_total", JOB), "records"),
        unit="cps",
        span=6,
    )
    page.lines(
        "Bytes",
        "Written and synced, per second.",
        Query(rate("sae_monitor_decision_log_bytes_total", JOB), "bytes"),
        unit="Bps",
        span=6,
    )
    page.lines(
        "Time to commit",
        "A group of records is synced before the answers that they belong to end.",
        *(
            Query(quantile(q, "sae_monitor_decision_log_commit_seconds", JOB), f"p{round(q * 100)}")
            for q in (0.5, 0.99)
        ),
        unit="s",
        span=6,
    )
    page.lines(
        "Records that wait",
        "For the next group.",
        Query(f"sum(sae_monitor_decision_log_queue_records{{{JOB}}})", "waiting"),
        unit="short",
        span=6,
    )


def _sight(page: Page) -> None:
    page.row("What was not seen")
    page.lines(
        "Tokens not scored",
        "By cause.",
        Query(rate("sae_monitor_tokens_unscored_total", JOB, "cause"), "{{cause}}"),
        unit="cps",
        stacked=True,
    )
    page.lines(
        "Tokens dropped from inputs",
        "Cut off because a caller allowed it; neither run nor scored.",
        Query(rate("sae_monitor_tokens_truncated_total", JOB), "truncated"),
        unit="cps",
    )


def _drift(page: Page) -> None:
    page.row("Drift against the corpus that units were measured on")
    page.lines(
        "Share of features that drifted",
        "More than four times as often active as then, or less than a quarter. Over an hour.",
        Query(f"max by (policy) (job_policy:sae_monitor_features_drifted:ratio1h{{{JOB}}})", "{{policy}}"),
        unit="percentunit",
    )
    page.bars(
        "Features that are active far more often",
        "Times the density over the corpus; the ten highest.",
        Query(
            f"topk(10, max by (policy, feature) (job_policy_feature:sae_monitor_feature_drift:ratio1h{{{JOB}}}))",
            "{{policy}} {{feature}}",
        ),
        "short",
        limits=Limits(2, 4),
    )
    page.lines(
        "Density, now and then",
        "Mean share of tokens on which a policy's features are active.",
        Query(
            f"avg by (policy) (job_policy_feature:sae_monitor_feature_density:ratio1h{{{JOB}}})", "{{policy}}"
        ),
        Query(f"avg by (policy) (sae_monitor_feature_density_baseline_ratio{{{JOB}}})", "{{policy}}, corpus"),
        unit="percentunit",
    )
    page.bars(
        "Features without a label set of their own",
        "Counted together as `other`, because the limit on label sets was reached.",
        Query(f"max by (policy) (sae_monitor_feature_label_sets_folded{{{JOB}}})", "{{policy}}"),
        "short",
        limits=Limits(1, 1),
    )


def _dictionary(page: Page) -> None:
    page.row("Dictionary, measured at start")
    page.number(
        "Active features",
        "Mean per token on fixed texts.",
        f"avg({DICTIONARY}_l0{{{JOB}}})",
        "short",
        span=6,
    )
    page.number(
        "Active features, expected",
        "Over the dictionary's own corpus.",
        f"avg({DICTIONARY}_l0_expected{{{JOB}}})",
        "short",
        span=6,
    )
    page.number(
        "Variance explained",
        "Of the residual stream, on fixed texts.",
        f"min({DICTIONARY}_explained_variance_ratio{{{JOB}}})",
        "percentunit",
        Limits(0.7, 0.5, below=True),
        span=6,
    )
    page.number(
        "Outliers",
        "Share of tokens whose residual is more than ten times as long as the median.",
        f"max({DICTIONARY}_norm_outliers_ratio{{{JOB}}})",
        "percentunit",
        Limits(0.02, 0.05),
        span=6,
    )
