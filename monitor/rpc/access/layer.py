"""The access layer: what every call passes between the socket and the servicer, built from settings."""

from __future__ import annotations

from functools import cached_property

import grpc

from monitor.model.load.host import Memory
from monitor.rpc.access.admission import Admission
from monitor.rpc.access.authentication import Authenticator
from monitor.rpc.access.call_checks import CallChecks
from monitor.rpc.access.call_interceptor import CallInterceptor, TimeLimits
from monitor.rpc.access.callers import read_callers
from monitor.rpc.access.exposure import check_exposure
from monitor.rpc.access.other_services import BesidesInterceptor
from monitor.rpc.access.quota import CallerQuotas
from monitor.rpc.access.tls import credentials
from monitor.rpc.process.grpc_server import CoreServer
from monitor.settings import Settings
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.metrics.security import SecurityMetrics
from monitor.telemetry.tracing import tracing_to


def check_access(settings: Settings) -> None:
    """Raise ConfigurationError where these settings cannot open a server. Called before a model is loaded."""
    if settings.callers is not None:
        read_callers(settings.callers)
    credentials(settings, SecurityMetrics())
    check_exposure(settings)


class AccessLayer:
    """TLS, authentication, quotas, admission, time limits and tracing of one server."""

    def __init__(self, service: str, settings: Settings, metrics: Metrics) -> None:
        self._service, self._settings, self._metrics = service, settings, metrics
        self.traces = tracing_to(settings.otlp_endpoint, settings.trace_ratio)
        self.security = SecurityMetrics(metrics.registry)
        memory = Memory(settings.memory_limit_bytes, settings.memory_watermark)
        self.security.memory(memory.used_ratio)
        self.admission = Admission(
            settings.max_concurrent_calls, settings.retry_after_seconds, metrics, memory.low
        )

        self.limits = TimeLimits(settings.max_message_seconds, settings.max_call_seconds)

    @cached_property
    def checks(self) -> CallChecks:
        """What every call passes, through whichever door it came: a caller's quota counts all of them.

        Raises ConfigurationError where the callers file cannot be used.
        """
        settings, metrics = self._settings, self._metrics
        calls = settings.max_calls_per_caller or max(1, settings.max_concurrent_calls // 2)
        quotas = CallerQuotas(calls, settings.max_tokens_per_caller, settings.retry_after_seconds, metrics)
        return CallChecks(Authenticator(settings, self.security), quotas, self.admission, self.security)

    def interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """The interceptors that every gRPC call passes. Raises ConfigurationError as `checks`."""
        settings, metrics = self._settings, self._metrics
        retry, seconds = settings.retry_after_seconds, settings.max_message_seconds
        return [
            CallInterceptor(self._service, self.checks, metrics, self.limits, self.traces),
            BesidesInterceptor(self._service, self.checks, retry, metrics, seconds),
        ]

    def bind(self, server: CoreServer) -> int:
        """Open the server's port, with TLS where a certificate is set, and return its number.

        Raises ConfigurationError where the certificates cannot be used and RuntimeError where the port cannot be
        opened.
        """
        secured, listen = credentials(self._settings, self.security), self._settings.listen
        port: int = (
            server.add_insecure_port(listen) if secured is None else server.add_secure_port(listen, secured)
        )
        return port
