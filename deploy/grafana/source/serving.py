"""Serving and engine: how fast, how full, what fails."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.source.panels import JOB, Limits, Page, Query, quantile, rate

DURATION, FIRST = "sae_monitor_request_duration_seconds", "sae_monitor_time_to_first_token_seconds"
KNOWN = f'up{{{JOB}, job=~"(.*/)?sae-monitor(-sidecar)?"}}'
"""Of a sidecar that is gone only this is left."""
PASSES = rate("sae_monitor_engine_passes_total", JOB)


def build() -> Dashboard:
    """The dashboard."""
    page = Page(
        "sae-monitor-serving",
        "sae-monitor / Serving and engine",
        "Calls, latency, queues and what the process uses.",
    )
    _numbers(page)
    _calls(page)
    _engine(page)
    _process(page)
    return page.build()


def _numbers(page: Page) -> None:
    page.row("Now")
    page.number(
        "Sidecars serving",
        "Share of those that Prometheus knows whose health service says SERVING.",
        f"(sum(sae_monitor_serving{{{JOB}}}) or vector(0)) / count({KNOWN})",
        "percentunit",
        Limits(1, 1, below=True),
    )
    page.number("Calls", "All methods.", rate("sae_monitor_requests_total", JOB), "reqps")
    page.number("Tokens scored", "Prompt and response.", rate("sae_monitor_tokens_scored_total", JOB), "cps")
    page.number(
        "First text, 99th percentile",
        "From arrival of a call.",
        f"max(job:sae_monitor_time_to_first_token_seconds:p99_5m{{{JOB}}})",
        "s",
        Limits(2, 5),
    )
    page.number(
        "Fullest queue",
        "Share of the places to wait that are taken.",
        f"max(sae_monitor_queue_depth{{{JOB}}} / sae_monitor_queue_limit{{{JOB}}})",
        "percentunit",
        Limits(0.5, 0.8),
    )
    page.number(
        "Turned away",
        "Calls refused before they ran.",
        rate("sae_monitor_rejected_requests_total", JOB),
        "reqps",
        Limits(0.01, 1),
    )


def _calls(page: Page) -> None:
    page.row("Calls")
    page.lines(
        "Calls by method and status",
        "gRPC status names.",
        Query(f"{rate('sae_monitor_requests_total', JOB, 'method', 'code')}", "{{method}} {{code}}"),
        unit="reqps",
        stacked=True,
    )
    page.lines(
        "Duration",
        "Of whole calls, by method. Dots lead to traces.",
        Query(quantile(0.5, DURATION, JOB, "method"), "{{method}} p50"),
        Query(quantile(0.99, DURATION, JOB, "method"), "{{method}} p99"),
        unit="s",
    )
    page.lines(
        "Time to first text",
        "Of generations. Dots lead to traces.",
        *(Query(quantile(q, FIRST, JOB), f"p{round(q * 100)}") for q in (0.5, 0.9, 0.99)),
        unit="s",
    )
    page.lines(
        "Turned away",
        "`queue`, `calls`, `memory` are load, `caller_…` is one caller's, `draining` a restart; `engine`, `log` are "
        "faults.",
        Query(rate("sae_monitor_rejected_requests_total", JOB, "reason"), "{{reason}}"),
        unit="reqps",
        stacked=True,
    )


def _engine(page: Page) -> None:
    page.row("Engine and scorer")
    page.lines(
        "Tokens scored",
        "By who wrote them.",
        Query(rate("sae_monitor_tokens_scored_total", JOB, "phase"), "{{phase}}"),
        unit="cps",
        stacked=True,
    )
    page.lines(
        "Waiting and running",
        "Requests in each queue, and in the batch.",
        Query(f"sum by (queue) (sae_monitor_queue_depth{{{JOB}}})", "{{queue}} waiting"),
        Query(f"sum by (queue) (sae_monitor_running{{{JOB}}})", "{{queue}} running"),
        unit="short",
    )
    page.lines("Forward passes", "Of the engine, all replicas.", Query(PASSES, "passes"), unit="cps")
    page.lines(
        "Places left in the queues",
        "One request more than there are places is refused.",
        Query(
            f"sum by (queue) (sae_monitor_queue_limit{{{JOB}}}) - sum by (queue) (sae_monitor_queue_depth{{{JOB}}})",
            "{{queue}}",
        ),
        unit="short",
    )


def _process(page: Page) -> None:
    page.row("Process")
    page.lines(
        "Processor",
        "Cores in use.",
        Query(
            f"sum by (instance) (rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval]))", "{{instance}}"
        ),
        unit="short",
    )
    page.lines(
        "Memory",
        "Resident.",
        Query(f"sum by (instance) (process_resident_memory_bytes{{{JOB}}})", "{{instance}}"),
        unit="bytes",
    )
    page.lines(
        "Open files",
        "Connections included.",
        Query(f"sum by (instance) (process_open_fds{{{JOB}}})", "{{instance}}"),
        unit="short",
    )
    page.rows(
        "What runs",
        "Versions and digests; more than one row means that replicas differ.",
        Query(
            "count by (version, model_digest, dictionary_digest, policies_digest)"
            f" (sae_monitor_build_info{{{JOB}}})"
        ),
    )
