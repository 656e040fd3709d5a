"""The check of a guard: what it finds in one that works, and in those that do not."""

import pytest

from monitor.http.guard.checkup import DoorCheck, Finding, GuardTrial
from monitor.policy.policyset import PolicySet
from monitor.records import Action, Mode
from monitor.rpc import assembly
from tests.http.guard.conftest import guarding
from tests.http.guard.upstream import chat, streamed, upstream
from tests.rpc.certificates import authority, issued
from tests.rpc.conftest import settings
from tests.rpc.fake import FakeRuntime, policies, policy


def by_name(found: list[Finding]) -> dict[str, bool]:
    return {one.name: one.passed for one in found}


def script(reply):
    """A server that answers whole and in streams."""
    if reply.asked.method == "GET":
        reply.whole({"data": []})
    elif reply.asked.json.get("stream"):
        streamed(["Par", "is. ", "It is."])(reply)
    else:
        reply.whole(chat("Paris."))


def test_a_door_that_works(behind):
    behind.script = script
    with guarding(behind) as guard:
        found = DoorCheck(guard.addresses.http, offending="a bomb").run()
    assert by_name(found) == {
        "it answers": True,
        "what is benign passes": True,
        "what offends is seen": True,
        "streams are held": True,
    }
    assert "weapons/word" in found[2].detail


@pytest.mark.parametrize(("status", "passes"), [(404, True), (500, True), (502, False), (503, False)])
def test_a_server_that_lists_no_models_answers_and_one_that_is_gone_does_not(behind, status, passes):
    def lists_none(reply):
        if reply.asked.method == "GET":
            reply.whole({"error": "no list"}, status)
        else:
            script(reply)

    behind.script = lists_none
    with guarding(behind) as guard:
        findings = DoorCheck(guard.addresses.http, offending="a bomb").run()
    assert ("lists no models" in findings[0].detail) == passes
    assert f"status {status}" in findings[0].detail
    assert by_name(findings) == {
        "it answers": passes,
        "what is benign passes": True,
        "what offends is seen": True,
        "streams are held": True,
    }


def test_a_server_without_a_guard_fails_the_check(behind):
    behind.script = script
    found = DoorCheck(behind.url, offending="a bomb").run()
    assert [one.passed for one in found] == [True, False, False, False]
    assert "nothing monitors it" in found[1].detail


def test_a_door_that_nobody_opens_is_told():
    found = DoorCheck("http://127.0.0.1:1").run()
    assert not any(one.passed for one in found)
    assert "nobody answers at http://127.0.0.1:1;" in found[0].detail


def test_policies_that_see_nothing_and_streams_that_are_not_held_fail_the_check(behind):
    behind.script = script
    with guarding(behind, guard_mode="end") as guard:
        found = by_name(DoorCheck(guard.addresses.http, offending="a bird").run())
    assert (found["what offends is seen"], found["streams are held"]) == (False, False)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"error": "model not found"}, "model not found"),
        ({"error": {"message": "no such model"}}, "no such model"),
        ({"error": {"message": None}}, "no message"),
        ({"detail": "Not Found"}, "no message"),
    ],
)
def test_errors_of_all_forms_are_told(behind, error, told):
    behind.script = lambda reply: reply.whole(error, 404)
    found = DoorCheck(behind.url, offending="a bomb").run()
    assert found[1].detail == f"status 404: {told}"
    assert not found[3].passed


def test_a_door_that_reads_no_streams_fails_the_check(behind):
    verdict = {"status": "checked", "action": "alert", "matched": True, "verdicts": []}

    def bypassed(reply):
        if reply.asked.method == "GET" or not reply.asked.json.get("stream"):
            reply.whole(chat("Paris.") | {"sae_monitor": verdict})
        else:
            streamed(["Paris."])(reply)

    behind.script = bypassed
    found = DoorCheck(behind.url, offending="a bomb").run()
    assert [one.passed for one in found] == [True, True, False, False]
    assert "ends without a verdict" in found[2].detail


def test_a_url_that_is_none_is_told():
    assert "InvalidURL" in DoorCheck("http://127.0.0.1:port").run()[0].detail


@pytest.mark.slow
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.SHADOW])
def test_a_guard_that_is_started_for_the_check(monkeypatch, tmp_path, closed, mode):
    chosen = policies(closed)
    if mode is Mode.SHADOW:
        chosen = PolicySet((policy("weapons", 9, Action.BLOCK, mode=mode),), "sha256:" + "d" * 64)
    runtime = FakeRuntime(chosen.watch, context=1000)
    made = assembly.Assembly(runtime, chosen, None, lambda: chosen, None)
    monkeypatch.setattr(assembly, "assemble", lambda _: made)
    with upstream() as behind:
        behind.script = script
        secured = issued(authority(), "localhost").write(tmp_path)
        chosen_settings = settings(upstream=behind.url, guard_read_seconds=3.0, **secured)
        found = GuardTrial(chosen_settings, "go and make a bomb now").run()
    assert all(one.passed for one in found), found
    assert len(found) == 6
    assert ("refused" in found[5].detail) == (closed and mode is Mode.ENFORCE)
