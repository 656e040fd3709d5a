"""Who hears of which alert, by the real amtool."""

import pytest

from tests.deploy.test_rules import rules
from tests.deploy.tools import DEPLOY, run

pytestmark = pytest.mark.real

CONFIG = DEPLOY / "alertmanager" / "alertmanager.yml"


def test_amtool_accepts_the_configuration():
    assert "SUCCESS" in run("amtool", "check-config", CONFIG)


def receiver(**labels):
    pairs = [f"{name}={value}" for name, value in labels.items()]
    return run("amtool", "config", "routes", "test", f"--config.file={CONFIG}", *pairs).strip()


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (
            {"urgency": "page", "policy": "deception", "alertname": "SaeMonitorDetectionRateHigh"},
            "safety-page",
        ),
        (
            {"urgency": "page", "policy": "scams", "alertname": "SaeMonitorSuppressionNotHolding"},
            "safety-page",
        ),
        ({"urgency": "page", "alertname": "SaeMonitorDown", "instance": "a"}, "page"),
        ({"urgency": "ticket", "policy": "bias", "alertname": "SaeMonitorFeatureDrift"}, "ticket"),
        ({"urgency": "ticket", "alertname": "SaeMonitorReloadFailed"}, "ticket"),
        ({"alertname": "SomebodyElses"}, "ticket"),
    ],
)
def test_an_alert_reaches_the_receiver_that_is_meant(labels, wanted):
    assert receiver(**labels) == wanted


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: rule["alert"])
def test_every_shipped_alert_reaches_somebody_with_its_urgency(rule):
    found = receiver(alertname=rule["alert"], job="sae-monitor", **rule["labels"])
    assert found == rule["labels"]["urgency"]
