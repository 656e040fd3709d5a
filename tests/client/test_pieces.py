"""Which text may be shown, piece by piece."""

import pytest

from monitor.client.pieces import HeldText, TextPiece, asking, beginning, ending, writing
from monitor.v1 import monitor_pb2 as pb


def test_pieces_are_cut_where_showing_ends():
    held = HeldText()
    for piece in (TextPiece("ab", "x"), TextPiece(""), TextPiece("cdé"), TextPiece("f")):
        held.wrote(piece)
    assert held.shown(0) == []
    assert held.shown(3) == [TextPiece("ab", "x"), TextPiece("c")]
    assert held.shown(2) == []
    assert held.shown(6) == [TextPiece("dé"), TextPiece("f")]
    assert held.shown(9) == []


def test_messages():
    begin = beginning("hi", {"holding": "sample", "sample_tokens": 4, "session": "s"}).begin
    assert (begin.input.text, begin.input.session_id) == ("hi", "s")
    assert (begin.holding, begin.sample_tokens) == (pb.HOLDING_SAMPLE, 4)
    assert beginning(None, {"labels": {"a": "b"}}).begin.input.labels == {"a": "b"}
    assert writing(TextPiece("x", "y", 2, "c"), settle=True).piece == pb.StreamPiece(
        text="x", part="y", unread=2, settle=True, call="c"
    )
    assert list(beginning("hi", {"calls": {"m[0]": "a\ud800"}}).begin.calls) == [
        pb.CallText(name="m[0]", text="a\ufffd")
    ]
    assert asking("tool", "x").piece.role == pb.ROLE_TOOL
    assert ending("error").end.finish_reason == pb.FINISH_REASON_ERROR


@pytest.mark.parametrize("wrong", [lambda: asking("assistant", "x"), lambda: ending("policy")])
def test_wrong_words_are_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
