"""The station: found while it is open, and nowhere else."""

from types import SimpleNamespace

import pytest

from monitor.errors import ConfigurationError
from monitor.vllm import station
from monitor.vllm.operator import Seat


def test_a_worker_without_a_monitor_is_refused():
    with pytest.raises(ConfigurationError, match="without a monitor"):
        station.found()


def test_the_one_that_is_open_is_found():
    one, other = station.Station(None, None), station.Station(None, None)
    with station.opened(one), station.opened(other):
        assert station.found() is other
    with pytest.raises(ConfigurationError):
        station.found()


def test_the_compile_cache_tells_taps_apart():
    marks = []
    for layer, later in ((2, ()), (3, ()), (2, (4,))):
        config = SimpleNamespace(additional_config={"own": 1})
        station.salt(config, Seat(None, layer, None, later))
        assert config.additional_config["own"] == 1
        marks.append(str(config.additional_config))
    assert len(set(marks)) == 3


def test_a_failure_that_nobody_asked_to_hear_of_is_raised():
    error = RuntimeError("a rank died")
    with pytest.raises(RuntimeError, match="a rank died"):
        station.Station(None, None).failed(error, True)
