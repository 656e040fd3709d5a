"""Dashboards: built again without difference, and every query answered by a real Prometheus under traffic."""

import json
import math
import re
import subprocess

import pytest

from tests.deploy.live import SILENT, SPEAKS, TRACE, prometheus, sidecar
from tests.deploy.processes import fetch, wait_for
from tests.deploy.tools import DEPLOY, found, run

FOLDER = DEPLOY / "grafana" / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))
VARIABLES = {
    "$__rate_interval": "8s",
    "$__range": "30s",
    "$job": ".*",
    "$policy": ".*",
    "$feature": ".*",
}


def test_building_again_gives_the_files_that_are_checked_in():
    pytest.importorskip("grafana_foundation_sdk", reason="the dashboards' builders are not installed")
    from deploy.grafana.source.__main__ import texts

    assert texts() == {path.name: path.read_text() for path in FILES}


def panels(path):
    every = json.loads(path.read_text())["panels"]
    assert not any(panel.get("panels") for panel in every), "panels inside of a row that is folded"
    return [panel for panel in every if panel["type"] != "row"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_ids_places_and_descriptions_of_their_own(path):
    board = json.loads(path.read_text())
    every = board["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in every]
    taken = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(taken) == len(set(taken))
    assert all(x >= 0 and x + w <= 24 for x, _, w, _ in places)
    for panel in panels(path):
        assert panel["description"].endswith((".", "?")), panel["title"]
        assert panel["targets"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        if len(panel["targets"]) > 1:
            assert all(target.get("legendFormat") for target in panel["targets"]), panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list("ABCDEFGH")[: len(letters)]
        assert panel["datasource"]["uid"] == "${datasource}"


def queries():
    """Dashboard, panel and expression of every query, those of variables included."""
    for path in FILES:
        board = json.loads(path.read_text())
        for panel in panels(path):
            for target in panel["targets"]:
                yield path.stem, panel["title"], target["expr"], target.get("legendFormat", "")
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
                yield path.stem, f"${variable['name']}", f"count by ({label}) ({series})", f"{{{{{label}}}}}"


def answered(server, expr, legend):
    """True where an expression gives a number, without what stands in for one, and the labels of its legend."""
    expr = expr.replace(" or vector(0)", "")
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    samples = [sample for sample in server.query(expr) if not math.isnan(float(sample["value"][1]))]
    wanted = set(re.findall(r"{{(\w+)}}", legend))
    assert all(wanted <= sample["metric"].keys() for sample in samples), (expr, legend)
    # A legend that does not name what tells two series apart shows them as one.
    assert not legend or len({tuple(s["metric"].get(n) for n in wanted) for s in samples}) == len(samples)
    return bool(samples)


@pytest.mark.real
def test_a_sidecar_that_is_gone_does_not_count_as_serving(tmp_path):
    """Its own metrics are gone with it; what Prometheus says of it is not."""
    (asked,) = [expr for _, title, expr, _ in queries() if title == "Sidecars serving"]
    for name, value in VARIABLES.items():
        asked = asked.replace(name, value)
    labels = ['job="sae-monitor", instance="a"', 'job="sae-monitor", instance="b"']
    cases = [((1, 1), (1, 1), 1), ((1, 0), (1, None), 0.5), ((1, 1), (1, 0), 0.5), ((0, 0), (None, None), 0)]
    tests = [
        {
            "input_series": [
                {"series": f"{name}{{{label}}}", "values": f"{value}x5"}
                for name, values in (("up", up), ("sae_monitor_serving", serving))
                for label, value in zip(labels, values, strict=True)
                if value is not None
            ],
            "promql_expr_test": [
                {"expr": asked, "eval_time": "3m", "exp_samples": [{"labels": "{}", "value": wanted}]}
            ],
        }
        for up, serving, wanted in cases
    ]
    # JSON is YAML.
    (tmp_path / "cases.yml").write_text(json.dumps({"tests": tests}))
    run("promtool", "test", "rules", tmp_path / "cases.yml")


@pytest.mark.real
@pytest.mark.slow
def test_every_panel_has_data_from_a_real_prometheus_under_traffic(tmp_path):
    found("prometheus")
    asked = list(queries())
    assert len(asked) > 60
    with (
        sidecar(tmp_path / "sidecar") as side,
        prometheus(tmp_path / "prometheus", side.metrics) as server,
        side.traffic(),
    ):
        side.text = SPEAKS + SILENT
        open_ones = asked

        def all_answered():
            nonlocal open_ones
            assert side.failed == []
            open_ones = [query for query in open_ones if not answered(server, *query[2:])]
            return not open_ones

        try:
            wait_for("data in every panel", all_answered)
        finally:
            assert not open_ones, "\n".join(map(str, open_ones))
        checked = subprocess.run(
            [found("promtool"), "check", "metrics"],
            input=fetch(f"http://{side.metrics}/metrics"),
            capture_output=True,
            check=False,
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
        traced = wait_for(
            "an exemplar", lambda: server.exemplars("sae_monitor_request_duration_seconds_bucket")
        )
        assert {e["labels"]["trace_id"] for series in traced for e in series["exemplars"]} == {TRACE}
    assert side.failed == []
