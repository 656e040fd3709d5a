"""Events of a generation as messages of a stream; events that piled up share one chunk. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from monitor.model.engine.requests import Released
from monitor.records import ScoredToken
from monitor.rpc.wire import responses
from monitor.v1 import monitor_pb2 as pb


def messages(request_id: str, events: Iterable[Released]) -> Iterator[pb.GenerateStreamResponse]:
    """Chunks and detections in the order in which they came."""
    texts: list[str] = []
    tokens: list[ScoredToken] = []

    def flush() -> Iterator[pb.GenerateStreamResponse]:
        if texts or tokens:
            chunk = pb.Chunk(text="".join(texts), tokens=responses.scored_tokens(tokens))
            yield pb.GenerateStreamResponse(request_id=request_id, chunk=chunk)
        texts.clear()
        tokens.clear()

    for event in events:
        if event.text:
            texts.append(event.text)
        tokens.extend(event.tokens)
        if event.detections:
            yield from flush()
        for detection in event.detections:
            yield pb.GenerateStreamResponse(request_id=request_id, detection=responses.detection(detection))
    yield from flush()
