"""Headers of requests and responses as Envoy sends them, and as it is told to change them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from monitor.v1 import ext_proc_pb2 as pb

Header = tuple[bytes, bytes]
"""Name in lower case, and value."""
SIZES = (b"content-length", b"transfer-encoding")
"""Headers that Envoy writes itself for a body that comes in parts."""


def read(headers: pb.HeaderMap) -> list[Header]:
    """Headers in order, pseudo headers among them."""
    return [(one.key.encode(), one.raw_value or one.value.encode()) for one in headers.headers]


def changes(before: Sequence[Header], after: Sequence[Header]) -> pb.HeaderMutation:
    """How headers become others. Pseudo headers stay as they are, and so do those that are in both."""
    old = [header for header in before if not header[0].startswith(b":")]
    new = [header for header in after if header[0] not in SIZES]
    removed = {name: None for name, _ in old if _of(old, name) != _of(new, name)}
    put = [(name, value) for name, value in new if _of(old, name) != _of(new, name)]
    gone = [name.decode("latin-1") for name in removed if not _of(new, name)]
    return pb.HeaderMutation(set_headers=_set(put), remove_headers=gone)


def only(headers: Iterable[Header]) -> pb.HeaderMutation:
    """The headers of a response that is made here."""
    return pb.HeaderMutation(set_headers=_set([h for h in headers if h[0] not in SIZES]))


def _of(headers: Sequence[Header], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _set(headers: Iterable[Header]) -> list[pb.HeaderValueOption]:
    found, seen = [], set[bytes]()
    for name, value in headers:
        # The first of a name takes the place of what was there, further ones stand beside it.
        how = (
            pb.HEADER_APPEND_ACTION_UNSPECIFIED
            if name in seen
            else pb.HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD
        )
        seen.add(name)
        header = pb.HeaderValue(key=name.decode("latin-1"), raw_value=value)
        found.append(pb.HeaderValueOption(header=header, append_action=how))
    return found
