"""A call's peer without a call: the headers that it sent, and what its connection knows."""

from __future__ import annotations


class Peer:
    """`monitor.rpc.access.authentication.Peer`."""

    def __init__(self, *headers: tuple[str, str | bytes], **context: list[bytes]) -> None:
        self.headers, self.context = headers, context

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...] | None:
        return self.headers or None

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.context


def bearer(token: str) -> Peer:
    """A peer that sends a token."""
    return Peer(("authorization", f"Bearer {token}"))
