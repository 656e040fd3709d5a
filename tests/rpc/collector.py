"""A real OTLP/gRPC receiver on loopback, which keeps what it gets."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.spans, self.resources = [], []
        self._lock = threading.Lock()

    def Export(self, request, context):  # noqa: N802
        with self._lock:
            for group in request.resource_spans:
                self.resources.append({a.key: a.value.string_value for a in group.resource.attributes})
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting():
    """A collector and its endpoint."""
    server, collector = grpc.server(ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def values(attributes):
    """The attributes of a span or an event as plain values."""
    return {a.key: _plain(a.value) for a in attributes}


def _plain(value):
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_plain(item) for item in found.values] if kind == "array_value" else found
