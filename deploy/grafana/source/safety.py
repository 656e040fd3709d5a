"""Safety overview: is anything happening, what is done about it, and can what is shown be believed."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.source.panels import JOB, Limits, Page, Query, rate

JUDGED = rate("sae_monitor_verdicts_total", JOB)
ACTED = rate("sae_monitor_verdicts_total", f'{JOB}, action!="allow"')
BLOCKED = rate("sae_monitor_verdicts_total", f'{JOB}, action="block"')
PER_REQUEST = "job_policy_severity_mode:sae_monitor_detections_per_request:ratio5m"


def build() -> Dashboard:
    """The dashboard."""
    page = Page(
        "sae-monitor-safety",
        "sae-monitor / Safety overview",
        "What policies detect and do, over all requests, and whether everything was scored.",
    )
    _numbers(page)
    _detections(page)
    _actions(page)
    return page.build()


def _numbers(page: Page) -> None:
    page.row("Now")
    page.number("Requests judged", "Requests that ended with a verdict.", JUDGED, "reqps")
    page.number(
        "Requests with an action",
        "Share of requests on which an enforced policy did more than allow.",
        f"{ACTED} / clamp_min({JUDGED}, 1e-9)",
        "percentunit",
        Limits(0.05, 0.2),
    )
    page.number(
        "Blocked",
        "Share of requests that were blocked, by a policy or because they could not be scored.",
        f"{BLOCKED} / clamp_min({JUDGED}, 1e-9)",
        "percentunit",
        Limits(0.05, 0.1),
    )
    page.number(
        "Not scored in full",
        "Requests with the verdict UNKNOWN in the time shown. Anything but zero needs a reason.",
        f"sum(increase(sae_monitor_monitor_failures_total{{{JOB}}}[$__range]))",
        "short",
        Limits(0.5, 1),
    )
    page.number(
        "Let through unscored",
        "Requests answered although they were not scored, in the time shown: `on_error: open` at work.",
        f"sum(increase(sae_monitor_fail_open_requests_total{{{JOB}}}[$__range]))",
        "short",
        Limits(0.5, 1),
    )
    page.number(
        "Alerts firing",
        "Alerts of this project that fire now.",
        'count(ALERTS{alertname=~"SaeMonitor.+", alertstate="firing"}) or vector(0)',
        "short",
        Limits(1, 2),
    )


def _detections(page: Page) -> None:
    page.row("Detections")
    enforced = f'{PER_REQUEST}{{{JOB}, mode="enforce"}}'
    page.lines(
        "Detections per request, enforced",
        "By policy. A rule may fire once in the prompt and once in the response.",
        Query(f"sum by (policy) ({enforced})", "{{policy}}"),
        unit="percentunit",
    )
    page.lines(
        "Detections per request, in shadow",
        "What rules in shadow would have done. Nothing was done.",
        Query(f'sum by (policy) ({PER_REQUEST}{{{JOB}, mode="shadow"}})', "{{policy}}"),
        unit="percentunit",
    )
    page.lines(
        "Detections by severity",
        "Enforced and in shadow.",
        Query(rate("sae_monitor_detections_total", JOB, "severity", "mode"), "{{severity}}, {{mode}}"),
        unit="cps",
        stacked=True,
    )
    page.lines(
        "Detections by phase",
        "`prompt` is what callers write, `response` what the model writes.",
        Query(rate("sae_monitor_detections_total", JOB, "phase"), "{{phase}}"),
        unit="cps",
        stacked=True,
    )


def _actions(page: Page) -> None:
    page.row("What was done, and what could not be seen")
    page.lines(
        "Verdicts",
        "Requests by their strongest action, and by whether they were checked at all.",
        Query(rate("sae_monitor_verdicts_total", JOB, "status", "action"), "{{status}}, {{action}}"),
        unit="reqps",
        stacked=True,
    )
    page.lines(
        "Blocked by policy",
        "Share of requests.",
        Query(f"job_policy:sae_monitor_blocked:ratio5m{{{JOB}}}", "{{policy}}"),
        unit="percentunit",
    )
    page.lines(
        "Suppressions",
        "Requests in which a policy clamped: did the concept stay down, at the layer and behind it?",
        Query(rate("sae_monitor_suppressions_total", JOB, "outcome"), "{{outcome}}"),
        unit="reqps",
        stacked=True,
    )
    page.lines(
        "Monitoring failures",
        "Requests that could not be scored, by cause.",
        Query(rate("sae_monitor_monitor_failures_total", JOB, "cause"), "{{cause}}"),
        unit="reqps",
        stacked=True,
    )
    page.bars(
        "Policies that let through what cannot be scored",
        "1 where a policy says `on_error: open`.",
        Query(f"max by (policy) (sae_monitor_policy_fail_open{{{JOB}}})", "{{policy}}"),
        "short",
        limits=Limits(1, 1),
    )
    page.rows(
        "Policies in force",
        "What is loaded, with what their measured quality supports.",
        Query(f"max by (policy, category, severity, maturity) (sae_monitor_policy_info{{{JOB}}})"),
    )
