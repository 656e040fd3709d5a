"""Options of the gRPC server for connections, headers, pings and messages (`grpc/impl/channel_arg_names.h`)."""

from __future__ import annotations

from monitor.settings import Settings

_PING_TIMEOUT_SHARE = 0.5
"""A ping must be answered within this share of the time between two pings, or the connection is closed."""


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Options of `grpc.aio.server` that keep one client from using more than its share."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Above the first size headers may be refused, above the second they always are. The defaults are 8 and 16 KiB.
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        ("grpc.server_handshake_timeout_ms", _ms(settings.handshake_seconds)),
        ("grpc.max_connection_idle_ms", _ms(settings.idle_seconds)),
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_seconds)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.max_call_seconds)),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_seconds * _PING_TIMEOUT_SHARE)),
        # Connections without calls are pinged too.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(settings.min_ping_seconds)),
        ("grpc.http2.max_ping_strikes", 2),
        # By default a second server could listen on the same port and take half of the calls.
        ("grpc.so_reuseport", 0),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
