"""Panels of this project's dashboards: titles, descriptions and queries in, typed Grafana panels out.

Panel ids are numbers in order and refIds letters in order, so that the same source always gives the same JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models import prometheus as queries

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24
JOB = 'job=~"$job"'
POLICY = f'{JOB}, policy=~"$policy"'
GOOD, BAD, DOUBTFUL = "green", "red", "orange"


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Limits:
    """Where a number becomes doubtful and where it is bad; `below` turns both around."""

    doubtful: float
    bad: float
    below: bool = False

    def steps(self) -> models.ThresholdsConfig | Any:
        """As Grafana's colour steps."""
        steps = [
            models.Threshold(None, GOOD),
            models.Threshold(self.doubtful, DOUBTFUL),
            models.Threshold(self.bad, BAD),
        ]
        if self.below:
            steps = [
                models.Threshold(None, BAD),
                models.Threshold(self.bad, DOUBTFUL),
                models.Threshold(self.doubtful, GOOD),
            ]
        return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


class Page:
    """A dashboard that is filled from left to right, row by row."""

    def __init__(self, uid: str, title: str, description: str) -> None:
        self._number = 0
        self._dashboard = (
            dashboard.Dashboard(title)
            .uid(uid)
            .description(description)
            .tags(["sae-monitor"])
            .time("now-3h", "now")
            .refresh("30s")
            .timezone("browser")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .editable()
            .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
            .link(
                dashboard.DashboardLink("sae-monitor")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags(["sae-monitor"])
                .as_dropdown(True)
                .keep_time(True)
            )
        )
        self.choice("job", "Job", "label_values(sae_monitor_build_info, job)")

    def choice(self, name: str, label: str, query: str) -> Self:
        """A variable to choose values of; all of them at first."""
        everything = models.VariableOption(selected=True, text="All", value="$__all")
        self._dashboard.with_variable(
            dashboard.QueryVariable(name)
            .label(label)
            .query(query)
            .datasource(SOURCE)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(everything)
        )
        return self

    def row(self, title: str) -> Self:
        """A heading over what follows."""
        self._number += 1
        self._dashboard.with_row(dashboard.Row(title).id(self._number))
        return self

    def number(
        self, title: str, says: str, expr: str, unit: str, limits: Limits | None = None, span: int = 4
    ) -> Self:
        """One number, now."""
        # A count over the time shown has no course within it.
        graph = shapes.BigValueGraphMode.NONE if "$__range" in expr else shapes.BigValueGraphMode.AREA
        panel = stat.Panel().color_mode(shapes.BigValueColorMode.VALUE).graph_mode(graph)
        return self._add(panel, title, says, [Query(expr)], unit, span, 4, limits)

    def yes(self, title: str, says: str, expr: str, span: int = 4) -> Self:
        """Whether something holds everywhere: an expression that gives 0 or 1."""
        words = {"0": ("no", BAD), "1": ("yes", GOOD)}
        options = {value: models.ValueMappingResult(text, color) for value, (text, color) in words.items()}
        panel = stat.Panel().color_mode(shapes.BigValueColorMode.VALUE).mappings([models.ValueMap(options)])
        return self._add(panel, title, says, [Query(expr)], "none", span, 4, None)

    def lines(
        self, title: str, says: str, *asked: Query, unit: str, span: int = 12, stacked: bool = False
    ) -> Self:
        """Lines over time."""
        panel = (
            timeseries.Panel()
            .fill_opacity(40 if stacked else 10)
            .show_points(shapes.VisibilityMode.NEVER)
            .span_nulls(False)
            .min(0)
            .legend(_legend())
            .tooltip(
                common.VizTooltipOptions()
                .mode(shapes.TooltipDisplayMode.MULTI)
                .sort(shapes.SortOrder.DESCENDING)
            )
        )
        if stacked:
            panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
        return self._add(panel, title, says, list(asked), unit, span, 8, None)

    def bars(
        self, title: str, says: str, asked: Query, unit: str, span: int = 12, limits: Limits | None = None
    ) -> Self:
        """One bar per series, now."""
        panel = bargauge.Panel().orientation(shapes.VizOrientation.HORIZONTAL).min(0)
        return self._add(panel, title, says, [asked], unit, span, 8, limits)

    def heat(self, title: str, says: str, asked: Query, unit: str, span: int = 12) -> Self:
        """A histogram over time: `le` on the axis, counts as colour."""
        panel = (
            heatmap.Panel()
            .calculate(False)
            .color(
                heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
            )
        )
        return self._add(panel, title, says, [asked], unit, span, 8, None, queries.PromQueryFormat.HEATMAP)

    def rows(self, title: str, says: str, asked: Query, span: int = 12) -> Self:
        """Labels as a table."""
        hidden = models.DataTransformerConfig(id_val="labelsToFields", options={"mode": "columns"})
        panel = table.Panel().with_transformation(hidden)
        return self._add(panel, title, says, [asked], "short", span, 8, None, queries.PromQueryFormat.TABLE)

    def build(self) -> models.Dashboard:
        """The dashboard."""
        return self._dashboard.build()

    def _add(
        self,
        panel: Any,
        title: str,
        says: str,
        asked: list[Query],
        unit: str,
        span: int,
        height: int,
        limits: Limits | None,
        form: queries.PromQueryFormat = queries.PromQueryFormat.TIME_SERIES,
    ) -> Self:
        self._number += 1
        panel.id(self._number).title(title).description(says).datasource(SOURCE).unit(unit).span(span).height(
            height
        )
        if limits is not None:
            panel.thresholds(limits.steps())
        for letter, query in zip("ABCDEFGH", asked, strict=False):
            target = prometheus.Dataquery().expr(query.expr).ref_id(letter).format(form).datasource(SOURCE)
            if query.legend:
                target.legend_format(query.legend)
            # Over a range, bars would keep series that have left the highest ten.
            now = isinstance(panel, bargauge.Panel) or "$__range]" in query.expr
            if now or form is queries.PromQueryFormat.TABLE:
                target.instant()
            else:
                target.range().exemplar("_bucket" in query.expr and "quantile" in query.expr)
            panel.with_target(target)
        self._dashboard.with_panel(panel)
        return self


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(shapes.LegendDisplayMode.LIST)
        .placement(shapes.LegendPlacement.BOTTOM)
        .calcs([])
    )


def rate(metric: str, selector: str, *by: str) -> str:
    """Sum of a counter's rate, by labels."""
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate({metric}{{{selector}}}[$__rate_interval]))"


def quantile(q: float, metric: str, selector: str, *by: str) -> str:
    """A quantile of a histogram, by labels."""
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', selector, 'le', *by)})"
