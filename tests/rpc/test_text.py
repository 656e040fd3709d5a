"""Nothing that a caller sends or gets stands in logs, metrics or errors: canaries through every path."""

import io
import json
import secrets

import grpc
import pytest
import structlog

from monitor.errors import MonitoringFailed
from monitor.rpc.access.roles import Role
from monitor.telemetry.logs import configure
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.conftest import DEADLINE, connected, generation
from tests.rpc.secured import Callers, guarded


@pytest.fixture(params=["json", "console"])
def logged(request, monkeypatch):
    """What goes to standard error, at the most talkative level."""
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    kept = structlog.get_config()
    configure("debug", request.param)
    yield written
    structlog.configure(**kept)


def ended(call):
    """The status of a call, and all that it says."""
    try:
        answer = call()
        if not isinstance(answer, pb.ListPoliciesResponse):
            list(answer) if hasattr(answer, "__next__") else answer.SerializeToString()
    except grpc.RpcError as error:
        return error.code().name, f"{error.details()} {error.trailing_metadata()}"
    return "OK", ""


def calls(stub, canary, header):
    """A call for every way in which one can end."""
    kept = {"timeout": DEADLINE, "metadata": header}
    text = pb.Input(text=f"{canary} lie")
    long = pb.Input(text=f"{canary} " * 200)
    chat = pb.Input(conversation=pb.Conversation(messages=[pb.ChatMessage(role=99, content=canary)]))
    yield lambda: stub.Score(pb.ScoreRequest(input=text, include_tokens=True), **kept)
    yield lambda: stub.Score(pb.ScoreRequest(input=long), **kept)
    yield lambda: stub.Score(pb.ScoreRequest(input=chat), **kept)
    yield lambda: stub.Inspect(pb.InspectRequest(input=text), **kept)
    for word in ("lie", "bomb", "sick", "fine"):
        asked = generation(f"{canary} {word}", max_new_tokens=3, stop=[canary * 2], include_tokens=True)
        yield lambda asked=asked: stub.Generate(pb.GenerateRequest(generation=asked), **kept)
        yield lambda asked=asked: stub.GenerateStream(pb.GenerateStreamRequest(generation=asked), **kept)
    wrong = generation(canary, stop=[canary * 30])
    yield lambda: stub.Generate(pb.GenerateRequest(generation=wrong), **kept)
    brief = kept | {"timeout": 0.001}
    yield lambda: stub.Generate(pb.GenerateRequest(generation=generation(canary)), **brief)


def test_no_text_and_no_token_in_logs_metrics_or_errors(logged, tmp_path):
    known = Callers(tmp_path / "callers")
    known.add("caller", *Role)
    canary = "canary" + secrets.token_hex(8)
    stranger = f"saem_{canary}"
    seen = []
    with guarded(callers=known.path, log_format="json") as server:
        with connected(server.addresses.grpc) as channel:
            stub = MonitorServiceStub(channel)
            seen += [ended(call) for call in calls(stub, canary, known.header("caller"))]
            seen += [ended(call) for call in calls(stub, canary, [("authorization", f"Bearer {stranger}")])]
            server.runtime.engine.crash = True
            seen += [ended(call) for call in calls(stub, canary, known.header("caller"))]
            server.runtime.engine.crash = False
            server.runtime.engine.fault = MonitoringFailed(f"could not read {canary}", "non_finite")
            seen += [ended(call) for call in calls(stub, canary, known.header("caller"))]
            raw = channel.unary_unary("/monitor.v1.MonitorService/Score")
            seen.append(ended(lambda: raw(b"\x0a\xff" + canary.encode(), metadata=known.header("caller"))))
        page = metrics_page(server.addresses.metrics)
    codes = {code for code, _ in seen}
    assert codes >= {"OK", "INTERNAL", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAUTHENTICATED"}
    for place in (logged.getvalue(), page, " ".join(text for _, text in seen)):
        assert place
        assert canary not in place
        assert known.tokens["caller"] not in place
    assert "call failed" in logged.getvalue()


def metrics_page(address):
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_a_failed_call_is_logged_with_its_caller(tmp_path, capsys):
    known = Callers(tmp_path / "callers")
    known.add("caller", Role.INFER)
    kept = structlog.get_config()
    configure("info", "json")
    try:
        with guarded(callers=known.path) as server, connected(server.addresses.grpc) as channel:
            code, _ = ended(
                lambda: MonitorServiceStub(channel).Score(
                    pb.ScoreRequest(), timeout=DEADLINE, metadata=known.header("caller")
                )
            )
    finally:
        structlog.configure(**kept)
    assert code == "INVALID_ARGUMENT"
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    failed = [line for line in lines if line["event"] == "call failed"]
    assert [line["caller"] for line in failed] == ["caller"]
