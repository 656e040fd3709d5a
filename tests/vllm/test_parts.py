"""What vLLM makes of our classes; `test_core` and `test_scheduler` have it at work."""

import pytest

from monitor.errors import ConfigurationError

pytestmark = pytest.mark.slow


def test_without_a_station_nothing_is_loaded(vllm):
    from monitor.vllm.parts import MonitoredWorker

    with pytest.raises(ConfigurationError, match="without a monitor"):
        MonitoredWorker.__new__(MonitoredWorker).load_model()


def test_the_worker_is_one_of_vllms(vllm):
    from monitor.vllm.parts import MonitoredWorker

    assert issubclass(MonitoredWorker, vllm.PlatformWorker)
    for name in ("load_model", "execute_model"):
        assert callable(getattr(vllm.PlatformWorker, name))
