"""What tools see of a server that describes itself, in both versions of reflection."""

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, fails, serving

SERVED = {
    "monitor.v1.MonitorService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
VERSIONS = ("v1", "v1alpha")


def asked(channel, version, *requests):
    """The answers of one stream. The messages of both versions have the same bytes."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        ServerReflectionRequest.SerializeToString,
        ServerReflectionResponse.FromString,
    )
    return list(call(iter(requests), timeout=DEADLINE))


def described(channel, version, symbol):
    """A pool of the files that describe a symbol, which a client can build only where none is missing."""
    (answer,) = asked(channel, version, ServerReflectionRequest(file_containing_symbol=symbol))
    assert not answer.HasField("error_response"), answer
    pool = DescriptorPool()
    files = [FileDescriptorProto.FromString(f) for f in answer.file_descriptor_response.file_descriptor_proto]
    for file in reversed(files):
        pool.Add(file)
    return pool


@pytest.mark.parametrize("version", VERSIONS)
def test_both_versions_list_and_describe_every_service(served, version):
    listing, again = asked(served.channel, version, *[ServerReflectionRequest(list_services="")] * 2)
    assert {service.name for service in listing.list_services_response.service} == SERVED
    assert again.list_services_response == listing.list_services_response
    for name in SERVED:
        found = described(served.channel, version, name).FindServiceByName(name)
        assert found.methods
        for method in found.methods:
            assert method.input_type.full_name.startswith(name.rpartition(".")[0] + ".")


def test_what_is_described_is_what_is_served(served):
    found = described(served.channel, "v1", "monitor.v1.MonitorService")
    ours = pb.DESCRIPTOR.services_by_name["MonitorService"]
    theirs = found.FindServiceByName("monitor.v1.MonitorService")
    assert [m.name for m in theirs.methods] == [m.name for m in ours.methods]
    assert found.FindMessageTypeByName("monitor.v1.Verdict").fields_by_name.keys()


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_served_is_not_described(served, version):
    """Other packages of the process, such as those of tracing, have descriptions too."""
    ask = ServerReflectionRequest(file_containing_symbol="google.rpc.Status")
    (answer,) = asked(served.channel, version, ask)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_both_versions_can_be_off(version):
    with serving(reflection=False) as served, fails("UNIMPLEMENTED"):
        asked(served.channel, version, ServerReflectionRequest(list_services=""))
