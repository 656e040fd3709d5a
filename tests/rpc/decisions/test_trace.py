"""Traces: the caller's context, GenAI names, what a request spent its time on, and never a word of text."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as names
from opentelemetry.trace import SpanKind, StatusCode
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from monitor.rpc.access import layer
from monitor.telemetry.decisions.reader import read
from monitor.telemetry.tracing.otel import SpanTracing
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.collector import collecting, values
from tests.rpc.conftest import DEADLINE, fails, generation, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)


@pytest.fixture
def exported(monkeypatch):
    """What a server in this test exports, as it ends."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(
        layer, "tracing_to", lambda endpoint, ratio: SpanTracing(exporter, ratio, batch=False)
    )
    return exporter


def score(served, text, metadata=None):
    request = pb.ScoreRequest(input=pb.Input(text=text))
    return served.stub.Score(request, timeout=DEADLINE, metadata=metadata)


def by_name(exporter):
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_generation_is_one_span_below_the_callers_with_its_parts(exported):
    with serving(trace_ratio=0.0) as served:
        request = pb.GenerateRequest(
            generation=generation("lie lie", max_new_tokens=3, temperature=0.5, seed=4)
        )
        answer = served.stub.Generate(request, timeout=DEADLINE, metadata=HEADER)
        served.score("lie")  # Not sampled, and its caller did not ask for it.
    spans = by_name(exported)
    assert set(spans) == {"text_completion tiny", "queue", "prefill", "decode", "rules"}
    request_span = spans["text_completion tiny"]
    assert f"{request_span.context.trace_id:032x}" == TRACE
    assert f"{request_span.parent.span_id:016x}" == PARENT
    assert request_span.kind is SpanKind.SERVER
    told = dict(request_span.attributes)
    assert {
        names.GEN_AI_OPERATION_NAME: "text_completion",
        names.GEN_AI_PROVIDER_NAME: "sae_monitor",
        names.GEN_AI_REQUEST_MODEL: "tiny",
        names.GEN_AI_REQUEST_MAX_TOKENS: 3,
        names.GEN_AI_REQUEST_TEMPERATURE: 0.5,
        names.GEN_AI_REQUEST_SEED: 4,
        names.GEN_AI_USAGE_INPUT_TOKENS: 3,
        names.GEN_AI_RESPONSE_FINISH_REASONS: ("length",),
        names.GEN_AI_RESPONSE_ID: answer.request_id,
        "rpc.method": "monitor.v1.MonitorService/Generate",
        "rpc.response.status_code": "OK",
        "sae_monitor.status": "checked",
        "sae_monitor.action": "suppress",
        "sae_monitor.tokens.scored": 6,
    }.items() <= told.items()
    for name in ("queue", "prefill", "decode", "rules"):
        part = spans[name]
        assert part.parent.span_id == request_span.context.span_id
        assert request_span.start_time <= part.start_time <= part.end_time <= request_span.end_time
    assert spans["queue"].end_time == spans["prefill"].start_time
    assert spans["prefill"].end_time == spans["decode"].start_time
    assert dict(spans["decode"].attributes)["sae_monitor.tokens.scored"] == 3
    assert dict(spans["rules"].attributes)["sae_monitor.rules.seconds"] > 0
    events = [(event.name, dict(event.attributes)["sae_monitor.phase"]) for event in request_span.events]
    assert events == [("sae_monitor.detection", "prompt"), ("sae_monitor.detection", "response")]


def test_no_span_holds_text(exported):
    with serving() as served:
        turns = [pb.ChatMessage(role=pb.ROLE_USER, content="lie about plans")]
        chat = pb.Input(conversation=pb.Conversation(messages=turns))
        served.stub.Score(pb.ScoreRequest(input=chat), timeout=DEADLINE)
        list(served.stream("lie about plans", max_new_tokens=3, stop=["never"]))
    spans = exported.get_finished_spans()
    assert {span.name for span in spans} >= {"score tiny", "text_completion tiny"}
    said = " ".join(span.to_json() for span in spans)
    assert not any(word in said for word in ("about", "plans", "never", '"lie'))


def test_errors_of_the_server_are_marked_and_those_of_callers_are_not(exported):
    with serving() as served:
        with fails("INVALID_ARGUMENT"):
            served.score("")
        served.runtime.engine.crash = True
        with fails("INTERNAL"):
            served.generate("quoted words", max_new_tokens=1)
    bad, crashed = [s for s in exported.get_finished_spans() if s.kind is SpanKind.SERVER]
    assert bad.status.status_code is StatusCode.UNSET
    assert crashed.status.status_code is StatusCode.ERROR
    assert dict(crashed.attributes)["error.type"] == "INTERNAL"
    assert "quoted" not in crashed.to_json()


def test_the_trace_id_is_in_records_and_log_lines_and_in_no_other_request(exported, tmp_path):
    with serving(decision_log=tmp_path) as served, capture_logs([merge_contextvars]) as logged:
        score(served, "lie", HEADER)
        served.score("lie")
        with fails("INVALID_ARGUMENT"):
            score(served, "", HEADER)
    own = [record["trace_id"] for record in read(tmp_path)]
    assert own[0] == TRACE != own[1]
    assert len(own[1]) == 32
    assert [line["trace_id"] for line in logged if line["event"] == "call failed"] == [TRACE]


def test_without_opentelemetry_the_callers_trace_id_is_still_known(tmp_path):
    with serving(decision_log=tmp_path) as served:
        score(served, "lie", HEADER)
        score(served, "lie", (("traceparent", "nonsense"),))
    first, second = read(tmp_path)
    assert first["trace_id"] == TRACE
    assert "trace_id" not in second


def test_spans_arrive_at_a_real_collector():
    with collecting() as (collector, endpoint):
        with serving(otlp_endpoint=endpoint) as served:
            answer = score(served, "lie", HEADER)
        (root,) = [span for span in collector.spans if span.name.startswith("score ")]
        assert {span.name for span in collector.spans} == {root.name, "queue", "prefill", "rules"}
        assert all(span.trace_id.hex() == TRACE for span in collector.spans)
        assert values(root.attributes)["gen_ai.response.id"] == answer.request_id
        assert values(root.events[0].attributes)["sae_monitor.policy"] == "deception"
        assert collector.resources[0]["service.name"] == "sae-monitor"


@pytest.mark.slow
def test_a_collector_that_is_not_there_holds_nobody_up():
    with serving(otlp_endpoint="http://127.0.0.1:1") as served:
        assert served.score("lie").verdict.matched


@pytest.mark.slow
def test_serving_needs_no_opentelemetry_and_says_what_to_install():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import monitor.rpc.server\n"
        "from monitor.telemetry.tracing import tracing_to\n"
        "from monitor.errors import ConfigurationError\n"
        "assert tracing_to(None, 1.0)\n"
        "try: tracing_to('http://127.0.0.1:1', 1.0)\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'sae-monitor[otel]'" in done.stdout


def test_detections_have_the_names_of_the_draft_for_guardrails_where_asked_for(exported):
    with serving(trace_findings=True) as served:
        score(served, "a lie and a bomb")
    (span,) = [s for s in exported.get_finished_spans() if s.name.startswith("score")]
    told = dict(span.attributes)
    assert told["gen_ai.security.verdict.type"] == "deny"
    assert told["gen_ai.security.target.type"] == "llm_input"
    found = [dict(event.attributes) for event in span.events if event.name == "gen_ai.security.finding"]
    assert {one["gen_ai.security.policy.name"]: one["gen_ai.security.verdict.type"] for one in found} == {
        "deception": "modify",
        "weapons": "deny",
    }
    assert found[0]["gen_ai.security.policy.rule.id"] == "word"


def test_nothing_of_the_draft_is_exported_unless_it_is_asked_for(exported):
    with serving() as served:
        score(served, "a lie and a bomb")
    spans = exported.get_finished_spans()
    named = {name for span in spans for name in span.attributes}
    assert {"gen_ai.response.id"} <= named
    assert not [name for name in named if name.startswith("gen_ai.security")]
    assert not [event for span in spans for event in span.events if event.name.startswith("gen_ai.security")]
