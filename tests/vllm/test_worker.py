"""The worker taps the model that it loads, at the layer that its station names, and nowhere without a station."""

import pytest

from monitor.errors import ConfigurationError

pytestmark = pytest.mark.slow


def test_without_a_station_nothing_is_loaded(vllm):
    from monitor.vllm.worker import MonitoredWorker

    with pytest.raises(ConfigurationError, match="without a monitor"):
        MonitoredWorker.__new__(MonitoredWorker).load_model()


def test_the_worker_is_one_of_vllms(vllm):
    from monitor.vllm.worker import MonitoredWorker

    assert issubclass(MonitoredWorker, vllm.PlatformWorker)
    for name in ("load_model", "execute_model"):
        assert callable(getattr(vllm.PlatformWorker, name))
