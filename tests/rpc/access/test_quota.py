from contextlib import ExitStack

import pytest

from monitor.errors import BadRequest, Overloaded
from monitor.rpc.access.quota import CallerQuotas
from monitor.rpc.access.roles import ANYBODY, Caller
from monitor.telemetry.metrics.metrics import Metrics
from tests.telemetry.metrics.measured import value

ONE, OTHER = Caller("one", frozenset()), Caller("other", frozenset())


@pytest.fixture
def metrics():
    return Metrics()


def refused(metrics, reason):
    return value(metrics, "rejected_requests_total", reason=reason)


def quotas(metrics, calls=2, tokens=10):
    return CallerQuotas(calls, tokens, 0.5, metrics)


def test_a_caller_has_so_many_calls_and_others_have_theirs(metrics):
    own = quotas(metrics)
    refusal = pytest.raises(Overloaded, match="2 calls in progress")
    with own.call(ONE), own.call(ONE), own.call(OTHER), refusal as caught, own.call(ONE):
        pytest.fail("it was let in")
    assert caught.value.retry_after == 0.5
    assert refused(metrics, "caller_calls") == 1
    with own.call(ONE), own.call(ONE):
        pass


def test_a_line_of_the_callers_file_goes_before_the_settings(metrics):
    own, greedy = quotas(metrics), Caller("greedy", frozenset(), calls=3, tokens=100)
    with own.call(greedy), own.call(greedy), own.call(greedy) as charge:
        charge.take(60)
        with pytest.raises(Overloaded), own.call(greedy):
            pytest.fail("it was let in")
        with pytest.raises(Overloaded):
            charge.take(41)
        charge.take(40)


def test_tokens_in_progress_are_counted_over_all_calls_of_a_caller(metrics):
    own = quotas(metrics)
    with own.call(ONE) as first:
        with own.call(ONE) as second, own.call(OTHER) as other:
            first.take(6)
            second.take(4)
            with pytest.raises(Overloaded, match="10 tokens in progress"):
                second.take(1)
            other.take(10)
        assert (first.tokens, second.tokens) == (6, 4)
        first.take(4)
    assert refused(metrics, "caller_tokens") == 1
    with own.call(ONE) as charge:
        charge.take(10)


def test_tokens_that_the_quota_never_allows_are_a_wrong_request(metrics):
    own = quotas(metrics)
    with own.call(ONE) as charge, pytest.raises(BadRequest, match="needs 11 tokens") as caught:
        charge.take(11)
    assert [violation.field for violation in caught.value.violations] == ["request"]
    assert charge.tokens == 0


def test_without_a_limit_tokens_are_counted_and_never_refused(metrics):
    own = quotas(metrics, tokens=None)
    with own.call(ONE) as charge:
        charge.take(10**9)
        charge.take(10**9)
    assert charge.tokens == 2 * 10**9


def test_callers_without_a_name_have_the_limits_of_the_server_only(metrics):
    own = quotas(metrics, calls=1, tokens=1)
    with own.call(ANYBODY) as first, own.call(ANYBODY):
        first.take(100)


def test_a_call_that_fails_gives_everything_back(metrics):
    own = quotas(metrics, calls=1)
    inside = ExitStack()
    inside.enter_context(own.call(ONE)).take(10)
    with pytest.raises(KeyError), inside:
        raise KeyError("x")
    with own.call(ONE) as charge:
        charge.take(10)
