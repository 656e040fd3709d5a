import asyncio

import pytest

from monitor.errors import PermissionDenied
from monitor.rpc.access import roles
from monitor.rpc.access.roles import ANYBODY, METHODS, Caller, Role
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import generation

CLAMPED = generation("hi", clamps=[pb.Clamp(feature=1)])


def who(*own):
    return Caller("somebody", frozenset(own))


@pytest.mark.parametrize("method", METHODS)
def test_any_role_that_a_method_names_is_enough_and_no_other_is(method):
    wanted = METHODS[method]
    for role in wanted:
        roles.check_method(who(role), method)
    with pytest.raises(PermissionDenied, match=method):
        roles.check_method(who(*(frozenset(Role) - wanted)), method)


def test_roles_include_no_other_role():
    with pytest.raises(PermissionDenied, match="Score needs the role infer"):
        roles.check_method(who(Role.ADMIN, Role.INSPECT), "Score")


def test_a_method_that_is_not_written_down_needs_admin():
    roles.check_method(who(Role.ADMIN), "Unheard")
    with pytest.raises(PermissionDenied, match="Unheard needs the role admin"):
        roles.check_method(who(Role.INFER, Role.INSPECT), "Unheard")


@pytest.mark.parametrize("message", [pb.GenerateRequest, pb.GenerateStreamRequest])
def test_clamps_of_a_request_need_admin(message):
    roles.check_request(who(Role.ADMIN), message(generation=CLAMPED))
    roles.check_request(who(Role.INFER), message(generation=generation("hi")))
    with pytest.raises(PermissionDenied, match=r"generation\.clamps needs the role admin"):
        roles.check_request(who(Role.INFER, Role.INSPECT), message(generation=CLAMPED))


@pytest.mark.parametrize("message", [pb.ScoreRequest(), pb.ReloadPoliciesRequest(), None])
def test_messages_without_clamps_need_no_role_of_their_own(message):
    roles.check_request(who(), message)


def test_clamps_of_another_door_are_named_by_its_field():
    roles.check_clamps(who(), (), "sae_monitor.clamps")
    with pytest.raises(PermissionDenied, match=r"sae_monitor\.clamps needs the role admin"):
        roles.check_clamps(who(), [1], "sae_monitor.clamps")


def test_without_authentication_everybody_may_do_everything():
    assert roles.caller.get() is ANYBODY
    for method in (*METHODS, "Unheard"):
        roles.check_method(ANYBODY, method)
    roles.check_request(ANYBODY, pb.GenerateRequest(generation=CLAMPED))


def test_each_task_has_a_caller_of_its_own():
    async def one(name):
        roles.caller.set(Caller(name, frozenset()))
        await asyncio.sleep(0)
        return roles.caller.get().name

    async def run():
        return await asyncio.gather(one("a"), one("b")), roles.caller.get()

    assert asyncio.run(run()) == (["a", "b"], ANYBODY)
