"""The external processor over gRPC, and its messages beside Envoy's own."""

import json
import os
import subprocess
import sys
import threading

import grpc
import pytest

from monitor.http.guard.door import GuardDoor
from monitor.rpc.envoy.conversation import FULL_DUPLEX
from monitor.rpc.envoy.processor import METHOD, SERVICE
from monitor.rpc.server import Server, run_in_background
from monitor.v1 import ext_proc_pb2 as pb
from tests.rpc.conftest import DEADLINE, connected, fails, settings
from tests.rpc.fake import FakeRuntime, policies
from tests.waiting import wait_for

XDS = os.environ.get("XDS_PROTOS")
DUPLEX = pb.ProtocolConfiguration(request_body_mode=FULL_DUPLEX, response_body_mode=FULL_DUPLEX)


@pytest.fixture(scope="module")
def served():
    chosen = policies()
    runtime = FakeRuntime(chosen.watch)
    options = {"http_listen": "127.0.0.1:0", "envoy": True, "max_running": 0}
    server = Server(settings(**options), runtime, chosen, door=GuardDoor)
    with run_in_background(server, 5.0) as addresses, connected(addresses.grpc) as channel:
        yield (
            channel.stream_stream(
                f"/{SERVICE}/{METHOD}",
                request_serializer=pb.ProcessingRequest.SerializeToString,
                response_deserializer=pb.ProcessingResponse.FromString,
            ),
            runtime,
        )


def asked(text, over):
    """A request with this prompt, as Envoy sends it, which then waits for what it is answered."""
    pairs = {":path": "/v1/chat/completions", ":method": "POST", "content-type": "application/json"}
    found = pb.HeaderMap(headers=[pb.HeaderValue(key=k, value=v) for k, v in pairs.items()])
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    yield pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=found), protocol_config=DUPLEX)
    yield pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True))
    over.wait(DEADLINE)


def test_a_prompt_that_is_blocked_is_answered_at_once(served):
    process, runtime = served
    over = threading.Event()
    call = process(asked("a bomb", over), timeout=DEADLINE)
    answer = next(call)
    over.set()
    assert list(call) == []
    assert answer.immediate_response.status.code == 200
    said = json.loads(answer.immediate_response.body)
    assert said["choices"][0]["finish_reason"] == "content_filter"
    wait_for(lambda: not runtime.scorer.streams)


def test_an_envoy_that_is_set_up_otherwise_is_refused(served):
    process, _ = served
    wrong = pb.ProcessingRequest(request_headers=pb.HttpHeaders(), observability_mode=True)
    with fails("INTERNAL"):
        list(process(iter([wrong]), timeout=DEADLINE))


def test_a_call_that_is_left_is_forgotten(served):
    process, runtime = served
    over = threading.Event()
    call = process(asked("hello", over), timeout=DEADLINE)
    assert next(call).HasField("request_headers")
    over.set()
    call.cancel()
    wait_for(lambda: not runtime.scorer.streams)


def test_it_is_not_there_unless_it_is_asked_for():
    chosen = policies()
    server = Server(settings(), FakeRuntime(chosen.watch), chosen)
    with run_in_background(server, 5.0) as addresses, connected(addresses.grpc) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            list(channel.stream_stream(f"/{SERVICE}/{METHOD}")(iter([b""]), timeout=DEADLINE))
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.skipif(
    XDS is None, reason="Envoy's protos are not here; unpack the wheel xds-protos and set XDS_PROTOS to it"
)
def test_fields_are_those_of_envoy():
    """In a process of its own: the package brings packages of other people along, and would hide ours."""
    asking = """
import json
from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as theirs
from envoy.type.v3 import http_status_pb2
found = {}
for file in (theirs, base_pb2, http_status_pb2):
    for name, message in file.DESCRIPTOR.message_types_by_name.items():
        found[name] = {f.name: (f.number, f.type, f.is_repeated) for f in message.fields}
modes = processing_mode_pb2.ProcessingMode.DESCRIPTOR.enum_types_by_name["BodySendMode"].values_by_name
actions = base_pb2.HeaderValueOption.DESCRIPTOR.enum_types_by_name["HeaderAppendAction"].values_by_number
service = theirs.DESCRIPTOR.services_by_name["ExternalProcessor"]
print(json.dumps([found, modes["FULL_DUPLEX_STREAMED"].number, sorted(actions), service.full_name]))
"""
    environment = {**os.environ, "PYTHONPATH": str(XDS)}
    done = subprocess.run(
        [sys.executable, "-c", asking], capture_output=True, text=True, env=environment, check=True
    )
    theirs, duplex, actions, service = json.loads(done.stdout)
    assert (duplex, service) == (FULL_DUPLEX, SERVICE)
    known = {value.number for value in pb.DESCRIPTOR.enum_types_by_name["HeaderAppendAction"].values}
    assert known <= set(actions)
    kinds = {5: 14}  # an enum is a number on the wire
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        for field in message.fields:
            number, kind, repeated = theirs[name][field.name]
            assert (field.number, field.is_repeated) == (number, repeated), (name, field.name)
            assert field.type in (kind, next((k for k, v in kinds.items() if v == kind), kind))
