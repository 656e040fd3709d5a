from __future__ import annotations

from monitor.dictionary.cards.detokenizer import Detokenizer


def test_pieces_join_to_the_text_where_characters_span_tokens():
    parts = ["né".encode()[:2], "né".encode()[2:], b" ok"]
    detokenizer = Detokenizer(lambda ids: b"".join(parts[i] for i in ids).decode(errors="replace"))
    assert detokenizer.pieces([0, 1, 2]) == ["", "né", " ok"]


def test_pieces_keep_the_spaces_that_single_tokens_lose():
    words = ["a", "b", "c"]
    detokenizer = Detokenizer(lambda ids: " ".join(words[i] for i in ids))
    assert detokenizer.pieces([0, 1, 2]) == ["a", " b", " c"]
