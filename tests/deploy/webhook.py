"""A webhook that remembers what Alertmanager sends to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook:
    """Alerts as they came, with the path of the receiver that they came to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.alerts: list[tuple[str, dict[str, Any]]] = []

    def first(self, receiver: str, status: str, **labels: str) -> dict[str, Any] | None:
        """The first alert of a receiver that has these labels."""
        for path, alert in list(self.alerts):
            if (path, alert["status"]) == (receiver, status) and labels.items() <= alert["labels"].items():
                return alert
        return None

    def names(self, receiver: str) -> set[str]:
        """Names of all alerts that a receiver got."""
        return {alert["labels"]["alertname"] for path, alert in list(self.alerts) if path == receiver}


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Listens on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.alerts += [(self.path.strip("/"), alert) for alert in body["alerts"]]
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    heard = Webhook(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,))
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
