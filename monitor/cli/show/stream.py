"""A generation printed while it runs: the prompt, then text as it is released, with detections between."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding

from monitor.cli.show.console import has_colour
from monitor.cli.show.shade import Painter
from monitor.cli.show.strength import RuleScores
from monitor.cli.show.verdict import detection_line, footer, verdict_block
from monitor.client import CallFailed
from monitor.v1 import monitor_pb2 as pb


class StreamPrinter:
    """Prints the events of a stream, and collects them into one answer."""

    def __init__(self, rules: RuleScores, console: Console) -> None:
        self.painter = Painter(rules, has_colour(console))
        self.console = console
        self.answer = pb.GenerateResponse()
        self._mid_line = False
        self._ended = False

    def take(self, event: pb.GenerateStreamResponse) -> None:
        """Print one event and add it to the answer."""
        self.answer.request_id = event.request_id
        kind = event.WhichOneof("event")
        if kind == "chunk":
            self._chunk(event.chunk)
        elif kind == "detection":
            self._detection(event.detection)
        elif kind == "final":
            self._final(event.final)

    def finished(self) -> pb.GenerateResponse:
        """Return the whole answer. Raises `CallFailed` where the stream ended without a verdict."""
        if not self._ended:
            raise CallFailed(
                "DATA_LOSS", "the stream ended without a verdict: nothing is known about this text"
            )
        return self.answer

    def _chunk(self, chunk: pb.Chunk) -> None:
        prompt = [t for t in chunk.tokens if t.phase == pb.PHASE_PROMPT]
        written = [t for t in chunk.tokens if t.phase != pb.PHASE_PROMPT]
        self.answer.tokens.extend(chunk.tokens)
        self.answer.text += chunk.text
        if prompt:
            self._print(self.painter.tokens(prompt))
            self._print(self.painter.boundary())
        if chunk.text:
            strength = max((self.painter.measure.strength(t) for t in written), default=0.0)
            self._print(self.painter.piece(chunk.text, strength))

    def _detection(self, detection: pb.Detection) -> None:
        self._break()
        self.console.print(detection_line(detection))

    def _final(self, final: pb.Final) -> None:
        self._break()
        self._ended = True
        self.answer.finish_reason = final.finish_reason
        self.answer.verdict.CopyFrom(final.verdict)
        self.answer.digests.CopyFrom(final.digests)
        self.console.print(Padding(self.painter.legend(), (1, 0)))
        self.answer.refusal = final.refusal
        self.console.print(verdict_block(final.verdict, final.finish_reason, final.refusal))
        self.console.print(footer(self.answer.request_id, final.digests))

    def _print(self, text: object) -> None:
        self.console.print(text, end="", soft_wrap=True)
        self.console.file.flush()
        self._mid_line = True

    def _break(self) -> None:
        if self._mid_line:
            self.console.print()
        self._mid_line = False


def show(
    events: Iterable[pb.GenerateStreamResponse], rules: RuleScores, console: Console
) -> pb.GenerateResponse:
    """Print a stream to its end, and return what it contained as one `GenerateResponse`."""
    stream = StreamPrinter(rules, console)
    for event in events:
        stream.take(event)
    return stream.finished()
