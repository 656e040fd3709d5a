"""gRPC reflection, by which tools such as grpcurl learn the methods of a server: versions v1 and v1alpha.

The library has v1alpha only. The two differ in the name of their package alone, so v1 is served with the messages of
v1alpha, and described by a copy of its file under the other name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

_OLD, _NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"
REFLECTION_SERVICES = (f"{_NEW}.ServerReflection", f"{_OLD}.ServerReflection")
"""The services that are added, in the order of preference."""
_METHOD = "ServerReflectionInfo"


class _MethodRegistry(Protocol):
    """The part of a gRPC server that takes handlers."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        """Register the methods of a service by their names."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add handlers that are asked for a path."""


def add_reflection(server: _MethodRegistry, served: Iterable[FileDescriptor]) -> None:
    """Add both versions to a server. They describe the services in the files `served`, themselves and nothing else."""
    files = (*served, reflection_pb2.DESCRIPTOR)
    names = [service.full_name for file in files for service in file.services_by_name.values()]
    servicer = reflection.aio.ReflectionServicer([*names, REFLECTION_SERVICES[0]], pool=_pool(files))
    for service in REFLECTION_SERVICES:
        handlers = {
            _METHOD: grpc.stream_stream_rpc_method_handler(
                servicer.ServerReflectionInfo,
                request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
                response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
            )
        }
        # As generated code does: the first for the core's own table, the second for the lookup behind it.
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_registered_method_handlers(service, handlers)


def _pool(files: Iterable[FileDescriptor]) -> DescriptorPool:
    """A pool of the files, all that they import, and the file of reflection v1."""
    pool, added = DescriptorPool(), set[str]()

    def add(file: FileDescriptor) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for imported in file.dependencies:
            add(imported)
        pool.AddSerializedFile(file.serialized_pb)

    for file in files:
        add(file)
    pool.Add(_renamed(reflection_pb2.DESCRIPTOR))
    return pool


def _renamed(file: FileDescriptor) -> FileDescriptorProto:
    """The description of v1alpha as that of v1."""
    copy = FileDescriptorProto()
    file.CopyToProto(copy)
    copy.name, copy.package = copy.name.replace("v1alpha", "v1"), _NEW
    fields = [field for message in copy.message_type for field in message.field]
    for field in (field for field in fields if field.type_name):
        field.type_name = field.type_name.replace(f".{_OLD}.", f".{_NEW}.")
    for method in copy.service[0].method:
        method.input_type = method.input_type.replace(f".{_OLD}.", f".{_NEW}.")
        method.output_type = method.output_type.replace(f".{_OLD}.", f".{_NEW}.")
    return copy
