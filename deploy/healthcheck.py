"""Asks grpc.health.v1 whether the sidecar serves: exit 0 where it does, 1 where it does not.

    python healthcheck.py 127.0.0.1:50051
    python healthcheck.py 127.0.0.1:50051 --ca ca.pem --name sae-monitor [--certificate client.pem --key client.key]
    python healthcheck.py 127.0.0.1:50051 --alive

With `--alive` any answer will do: a sidecar that says NOT_SERVING, because its disk is full or it drains, gets no
better by being killed. Neither does one whose certificate has ended: it still serves open connections.

For containers whose port only they can reach, or that speak TLS: a kubelet's own gRPC probe does neither. Needs
nothing but what the server needs; prints one line for whoever reads the events.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SECONDS = 4.0


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description="Ask grpc.health.v1 whether a server serves.")
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("--ca", type=Path, help="PEM of authorities: connect over TLS")
    parser.add_argument("--name", help="name in the server's certificate, where it is not the host")
    parser.add_argument(
        "--certificate", type=Path, help="PEM of a client certificate, where the server wants one"
    )
    parser.add_argument("--key", type=Path, help="PEM of its key")
    parser.add_argument("--alive", action="store_true", help="exit 0 where it answers, whatever it says")
    asked = parser.parse_args(arguments)
    try:
        with _channel(asked) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=SECONDS
            )
    except (grpc.RpcError, OSError) as error:
        if asked.alive and asked.ca and _why(error) == "UNAVAILABLE" and _speaks_tls(asked.address):
            print(f"{asked.address}: alive, but its certificate is not accepted")  # noqa: T201
            return 0
        print(f"no answer from {asked.address}: {_why(error)}")  # noqa: T201
        return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(f"{asked.address}: {status}")  # noqa: T201
    return 0 if asked.alive or answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _channel(asked: argparse.Namespace) -> grpc.Channel:
    options = [("grpc.enable_http_proxy", 0)]
    if asked.ca is None:
        return grpc.insecure_channel(asked.address, options)
    if asked.name:
        options.append(("grpc.ssl_target_name_override", asked.name))
    own = (asked.key.read_bytes(), asked.certificate.read_bytes()) if asked.certificate else (None, None)
    return grpc.secure_channel(
        asked.address, grpc.ssl_channel_credentials(asked.ca.read_bytes(), *own), options
    )


def _speaks_tls(address: str) -> bool:
    """Whether a handshake ends well with somebody who takes any certificate. Nothing is sent."""
    host, _, port = address.rpartition(":")
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    anybody.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((host.strip("[]"), int(port)), SECONDS) as plain:
            anybody.wrap_socket(plain).close()
    except (OSError, ValueError):
        return False
    return True


def _why(error: Exception) -> str:
    return error.code().name if isinstance(error, grpc.RpcError) else str(error)


if __name__ == "__main__":
    sys.exit(main())
