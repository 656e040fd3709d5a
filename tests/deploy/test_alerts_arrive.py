"""From an offending text to a person and back: sidecar, Prometheus and Alertmanager as they are shipped.

The rules and the routes are the shipped ones; only their durations are shortened (`live.shortened`, `_routes`) and
the receivers' addresses are this test's webhook.
"""

import re
from contextlib import contextmanager

import pytest

from tests.deploy.live import SILENT, prometheus, sidecar
from tests.deploy.processes import free_port, process, wait_for
from tests.deploy.tools import DEPLOY, found
from tests.deploy.webhook import webhook

pytestmark = pytest.mark.real


def _routes(port):
    """The shipped routes with waits of a second, and receivers at a port of ours."""
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()
    text = re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", text)
    return text.replace("127.0.0.1:9099", f"127.0.0.1:{port}")


@contextmanager
def alertmanager(folder, port):
    folder.mkdir()
    config = folder / "alertmanager.yml"
    config.write_text(_routes(port))
    address = f"127.0.0.1:{free_port()}"
    command = [
        found("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with process(command, folder / "alertmanager.log", folder, f"http://{address}/-/ready"):
        yield address


@pytest.mark.slow
def test_an_alert_arrives_with_its_labels_and_resolves(tmp_path):
    found("prometheus")
    with (
        webhook() as heard,
        alertmanager(tmp_path / "alertmanager", heard.port) as manager,
        sidecar(tmp_path / "sidecar") as side,
        prometheus(tmp_path / "prometheus", side.metrics, manager),
        side.traffic(),
    ):
        labels = {"alertname": "SaeMonitorDetectionRateHigh", "policy": "alerting"}
        fired = wait_for("the alert at the webhook", lambda: heard.first("safety-page", "firing", **labels))
        assert fired["labels"] == labels | {
            "job": "sae-monitor",
            "severity": "high",
            "mode": "enforce",
            "urgency": "page",
        }
        assert re.fullmatch(
            r"alerting \(high\) fires on [\d.]+% of requests", fired["annotations"]["summary"]
        )
        assert fired["annotations"]["runbook_url"] == "deploy/runbook.md#saemonitordetectionratehigh"
        assert fired["endsAt"].startswith("0001")

        side.text = SILENT
        ended = wait_for("its end", lambda: heard.first("safety-page", "resolved", **labels))
        assert (ended["labels"], ended["startsAt"]) == (fired["labels"], fired["startsAt"])
        assert ended["endsAt"] > ended["startsAt"]
        quiet = {"SaeMonitorAbsent", "SaeMonitorTapNotFiring", "SaeMonitorTokensUnscored"}
        assert not quiet & (heard.names("page") | heard.names("ticket"))
    assert side.failed == []


@pytest.mark.slow
def test_a_sidecar_that_dies_is_reported_as_down(tmp_path):
    found("prometheus")
    with webhook() as heard, alertmanager(tmp_path / "alertmanager", heard.port) as manager:
        nobody = f"127.0.0.1:{free_port()}"
        with prometheus(tmp_path / "prometheus", nobody, manager):
            labels = {"alertname": "SaeMonitorDown", "instance": nobody}
            fired = wait_for("the alert at the webhook", lambda: heard.first("page", "firing", **labels))
            assert fired["labels"] == labels | {"job": "sae-monitor", "urgency": "page"}
