import asyncio

import pytest

from monitor.errors import Overloaded, PermissionDenied, Unauthenticated
from monitor.rpc.access import roles
from monitor.rpc.access.admission import Admission
from monitor.rpc.access.authentication import Authenticator
from monitor.rpc.access.call_checks import CallChecks
from monitor.rpc.access.quota import CallerQuotas
from monitor.rpc.access.roles import ANYBODY, Role
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.metrics.security import SecurityMetrics
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.access.peers import Peer, bearer
from tests.rpc.conftest import generation, settings
from tests.rpc.secured import Callers
from tests.telemetry.metrics.measured import value

CLAMPED = pb.GenerateRequest(generation=generation("hi", clamps=[pb.Clamp(feature=1)]))


@pytest.fixture
def known(tmp_path):
    found = Callers(tmp_path / "callers")
    found.add("one", Role.INFER)
    found.add("chief", Role.ADMIN)
    return found


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def checks(known, metrics):
    """One call in all may be in progress."""
    security = SecurityMetrics(metrics.registry)
    return CallChecks(
        Authenticator(settings(callers=known.path), security),
        CallerQuotas(2, 10, 0.5, metrics),
        Admission(1, 0.5, metrics),
        security,
    )


def inside(checks, method, peer, then=lambda _: None):
    """What `then` gives in a call; in a task of its own, which is what a caller is set for."""

    async def run():
        with checks.call(method, peer) as charge:
            return then(charge)

    return asyncio.run(run())


def test_a_call_knows_its_caller_and_charges_its_tokens(checks, known, metrics):
    def spent(charge):
        charge.take(7)
        return roles.caller.get().name, charge.tokens

    assert inside(checks, "Score", bearer(known.tokens["one"]), spent) == ("one", 7)
    assert value(metrics, "caller_calls_total", caller="one") == 1
    assert roles.caller.get() is ANYBODY


def test_who_is_not_known_takes_no_place(checks, known, metrics):
    def nested(_):
        for peer, kind in ((Peer(), Unauthenticated), (bearer(known.tokens["one"]), Overloaded)):
            with pytest.raises(kind), checks.call("Score", peer):
                pytest.fail("it was let in")

    inside(checks, "Score", bearer(known.tokens["one"]), nested)
    assert value(metrics, "refused_callers_total", reason="no_token") == 1
    assert value(metrics, "caller_calls_total", caller="one") == 1


def test_a_caller_without_the_role_is_refused_and_counted_before_it_takes_a_place(checks, known, metrics):
    with pytest.raises(PermissionDenied, match="ReloadPolicies"):
        inside(checks, "ReloadPolicies", bearer(known.tokens["one"]))
    assert value(metrics, "refused_callers_total", reason="role") == 1
    assert value(metrics, "caller_calls_total", caller="one") == 0
    assert inside(checks, "Score", bearer(known.tokens["one"]), lambda _: True)


def test_a_message_is_checked_by_the_roles_of_the_calls_caller(checks, known, metrics):
    with pytest.raises(PermissionDenied, match="clamps"):
        inside(checks, "Generate", bearer(known.tokens["one"]), lambda _: checks.check(CLAMPED))
    assert value(metrics, "refused_callers_total", reason="role") == 1
    inside(checks, "ReloadPolicies", bearer(known.tokens["chief"]), lambda _: checks.check(CLAMPED))


def test_who_calls_can_be_asked_without_a_call(checks, known):
    async def run():
        return checks.identify(bearer(known.tokens["chief"])), roles.caller.get()

    found, current = asyncio.run(run())
    assert (found.name, current) == ("chief", found)
    with pytest.raises(Unauthenticated):
        checks.identify(Peer())
