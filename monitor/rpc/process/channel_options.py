"""What gRPC's core is told about connections, headers, pings and messages.

Knows names of channel arguments (`grpc/impl/channel_arg_names.h`). Does not know calls.
"""

from __future__ import annotations

from monitor.settings import Settings

_SILENCE = 2
"""Silent connections are closed after half of the time between two signs of life."""


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Options of `grpc.aio.server`: everything that keeps one peer from taking more than its share."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Both the size at which refusal begins and the one at which it is certain, or the core's own 8 to 16 KiB hold.
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        ("grpc.server_handshake_timeout_ms", _ms(settings.handshake_seconds)),
        ("grpc.max_connection_idle_ms", _ms(settings.idle_seconds)),
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_seconds)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.max_call_seconds)),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_seconds / _SILENCE)),
        # A connection that never begins a call must show signs of life too.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(settings.min_ping_seconds)),
        ("grpc.http2.max_ping_strikes", 2),
        # Without it a second server could take the same port and half of the calls.
        ("grpc.so_reuseport", 0),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
