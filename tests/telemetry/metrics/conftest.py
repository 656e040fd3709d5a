import pytest
from prometheus_client import CollectorRegistry

from monitor.telemetry.metrics.metrics import Metrics


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())
