from contextlib import ExitStack, suppress

import pytest

from monitor.errors import ConfigurationError, Overloaded
from monitor.rpc.access.call_interceptor import CallInterceptor
from monitor.rpc.access.layer import AccessLayer, check_access
from monitor.rpc.access.other_services import BesidesInterceptor
from monitor.rpc.access.roles import Role
from monitor.telemetry.metrics.metrics import Metrics
from tests.rpc.access.peers import bearer
from tests.rpc.certificates import authority, issued
from tests.rpc.conftest import settings
from tests.rpc.secured import Callers
from tests.telemetry.metrics.measured import value


@pytest.fixture
def known(tmp_path):
    found = Callers(tmp_path / "callers")
    found.add("one", Role.INFER)
    return found


def layer(**changes):
    metrics = Metrics()
    return AccessLayer("service", settings(**changes), metrics), metrics


def test_settings_that_open_a_server_pass(known):
    check_access(settings())
    check_access(settings(callers=known.path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"callers": "missing"}, "cannot be read"),
        ({"tls_certificate": "missing", "tls_key": "missing"}, "missing"),
        ({"listen": "0.0.0.0:0"}, "other machines reach"),
    ],
)
def test_what_cannot_open_a_server_is_said_before_a_model_is_loaded(tmp_path, changes, said):
    changed = {name: tmp_path / text if text == "missing" else text for name, text in changes.items()}
    with pytest.raises(ConfigurationError, match=said):
        check_access(settings(**changed))


def held(checks, peer):
    """How many calls of a caller are let in at once."""
    with ExitStack() as inside, suppress(Overloaded):
        count = 0
        while True:
            inside.enter_context(checks.call("Score", peer))
            count += 1
    return count


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"max_concurrent_calls": 6}, 3),
        ({"max_concurrent_calls": 1}, 1),
        ({"max_concurrent_calls": 6, "max_calls_per_caller": 5}, 5),
    ],
)
def test_a_caller_has_half_of_all_calls_unless_set(known, changes, wanted):
    found, _ = layer(callers=known.path, memory_watermark=1.0, **changes)
    assert held(found.checks, bearer(known.tokens["one"])) == wanted


def test_both_doors_pass_the_same_checks():
    found, _ = layer(max_concurrent_calls=2, memory_watermark=1.0)
    assert found.checks is found.checks
    with found.admission.call():
        assert held(found.checks, None) == 1


def test_a_file_of_callers_that_cannot_be_used_is_said(tmp_path):
    found, _ = layer(callers=tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        found.interceptors()


def test_calls_pass_this_service_and_then_the_others():
    found, _ = layer()
    assert [type(one) for one in found.interceptors()] == [CallInterceptor, BesidesInterceptor]


def test_limits_and_memory_come_from_the_settings():
    found, metrics = layer(max_message_seconds=3.0, max_call_seconds=9.0, memory_limit_bytes=1 << 20)
    assert (found.limits.message, found.limits.call) == (3.0, 9.0)
    assert value(metrics, "memory_used_ratio") > 1
    with pytest.raises(Overloaded, match="memory"), found.admission.call():
        pytest.fail("it was let in")


@pytest.mark.parametrize("secured", [False, True])
def test_a_port_is_opened_with_tls_where_a_certificate_is_set(tmp_path, secured):
    class Core:
        def add_insecure_port(self, address):
            return f"open {address}"

        def add_secure_port(self, address, credentials):
            return f"secured {address}"

    changes = issued(authority(), "server").write(tmp_path) if secured else {}
    found, _ = layer(**changes)
    assert found.bind(Core()) == f"{'secured' if secured else 'open'} 127.0.0.1:0"
