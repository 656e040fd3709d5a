"""A real server at its most talkative: nothing that was said to it, or by it, stands anywhere that it writes."""

import secrets
import urllib.request

import grpc
import pytest

from monitor.rpc.access.roles import Role
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.deploy.live import SILENT, SPEAKS, sidecar
from tests.deploy.processes import wait_for
from tests.rpc.collector import collecting
from tests.rpc.secured import Callers

DEADLINE = 60


class Said:
    """Calls that carry secrets everywhere, and what came back."""

    def __init__(self, channel, secret, header):
        self._channel, self._secret, self._header = channel, secret, header
        self.codes, self.errors, self.ids, self.answers = set(), [], [], []

    def call(self, method, request, header=None, timeout=DEADLINE):
        more = [("x-note", self._secret), ("x-note-bin", self._secret.encode())]
        try:
            found = getattr(MonitorServiceStub(self._channel), method)(
                request, timeout=timeout, metadata=[*(header or self._header), *more]
            )
            for answer in found if method == "GenerateStream" else [found]:
                if method != "Inspect":
                    self.ids.append(answer.request_id)
                self.answers.append(getattr(answer, "text", "") or answer_text(answer))
            self.codes.add("OK")
        except grpc.RpcError as error:
            self.failed(error)

    def raw(self, method, body):
        try:
            self._channel.unary_unary(f"/monitor.v1.MonitorService/{method}")(
                body, timeout=DEADLINE, metadata=self._header
            )
        except grpc.RpcError as error:
            self.failed(error)

    def failed(self, error):
        self.codes.add(error.code().name)
        self.errors.append(f"{error.details()} {error.trailing_metadata()}")


def answer_text(answer):
    return answer.chunk.text if hasattr(answer, "chunk") else ""


def everything(said, secret, stranger):
    """A call of every method and of every way to fail that a client has."""
    for text in (f"{secret} {SPEAKS}", f"{SILENT} {secret}"):
        whole = pb.Input(text=text)
        said.call("Score", pb.ScoreRequest(input=whole, include_tokens=True))
        said.call("Inspect", pb.InspectRequest(input=whole))
        asked = pb.Generation(input=whole, sampling=pb.Sampling(max_new_tokens=24))
        said.call("Generate", pb.GenerateRequest(generation=asked))
        said.call("GenerateStream", pb.GenerateStreamRequest(generation=asked))
        said.call("Generate", pb.GenerateRequest(generation=asked), timeout=0.001)
        said.call("Score", pb.ScoreRequest(input=whole), header=[("authorization", f"Bearer {stranger}")])
    said.call("Score", pb.ScoreRequest(input=pb.Input(text=f"{secret} " * 3000)))
    wrong = pb.Sampling(max_new_tokens=4, stop=[secret * 40])
    said.call("Generate", pb.GenerateRequest(generation=pb.Generation(input=whole, sampling=wrong)))
    turn = pb.ChatMessage(role=99, content=secret)
    said.call("Score", pb.ScoreRequest(input=pb.Input(conversation=pb.Conversation(messages=[turn]))))
    said.raw("Score", b"\x0a\xff" + secret.encode())
    said.raw("Unknown" + secret, b"")


def pages(address):
    """Both formats of the metrics."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for accept in ("text/plain", "application/openmetrics-text"):
        with opener.open(
            urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept}), timeout=30
        ) as answer:
            yield answer.read().decode()


@pytest.mark.slow
def test_secrets_are_in_no_log_trace_metric_record_or_error(tmp_path):
    pytest.importorskip("opentelemetry.sdk")
    known = Callers(tmp_path / "callers")
    known.add("caller", *Role)
    secret, stranger = "secret" + secrets.token_hex(8), "saem_stranger" + secrets.token_hex(16)
    with collecting() as (collector, endpoint):
        more = {"callers": known.path, "log_level": "debug", "otlp_endpoint": endpoint}
        more |= {"decision_log": tmp_path / "decisions", "decision_log_records": "all"}
        with sidecar(tmp_path / "sidecar", **more) as side:
            said = Said(side.channel, secret, known.header("caller"))
            everything(said, secret, stranger)
            metrics = "".join(pages(side.metrics))
            wait_for("spans", lambda: any(s.name.startswith("score ") for s in collector.spans))
    assert said.codes >= {"OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"}
    records = b"".join(path.read_bytes() for path in (tmp_path / "decisions").glob("*.jsonl")).decode()
    places = {
        "log": (tmp_path / "sidecar" / "sidecar.log").read_text(),
        "metrics": metrics,
        "traces": "\n".join(map(str, [*collector.spans, *collector.resources])),
        "records": records,
        "errors": "\n".join(said.errors),
    }
    assert said.ids
    for name in said.ids:
        assert name in places["records"]
        assert name in places["traces"]
    hidden = [secret, stranger, known.tokens["caller"], SPEAKS[:24], SILENT[:24]]
    hidden += [text[at : at + 16] for text in said.answers for at in range(0, len(text) - 16, 8)]
    assert len(hidden) > 5, "the model wrote nothing"
    for place, text in places.items():
        assert len(text) > 200, place
        assert [one for one in hidden if one in text] == [], place
