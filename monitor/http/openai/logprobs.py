"""Log-probabilities in answers, in the two forms of the OpenAI API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monitor.records import TokenLogprobs, TokenSpelling, TokenSpellings

MOST_IN_CHATS = 20
"""Maximum of `top_logprobs`."""
MOST_IN_COMPLETIONS = 5
"""Maximum of `logprobs` in completions, where it is a number."""


def of_chat(found: Sequence[TokenLogprobs], spell: TokenSpellings) -> dict[str, Any]:
    """`logprobs` of a choice of a chat: one entry a token."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        token = spell(token_id)
        data = None if token.data is None else list(token.data)
        return {"token": token.text, "logprob": logprob, "bytes": data}

    content = [
        entry(one.token_id, one.logprob) | {"top_logprobs": [entry(*likely) for likely in one.likeliest]}
        for one in found
    ]
    return {"content": content, "refusal": None}


def of_completion(found: Sequence[TokenLogprobs], spell: TokenSpellings) -> dict[str, Any]:
    """`logprobs` of a choice of a completion: lists over its tokens.

    The likeliest tokens at a place, and the one that was drawn, are there by their texts.
    """

    def likeliest(one: TokenLogprobs) -> dict[str, float]:
        texts: dict[str, float] = {}
        for token_id, logprob in (*one.likeliest, (one.token_id, one.logprob)):
            texts.setdefault(_as_key(spell(token_id)), logprob)
        return texts

    return {
        "tokens": [_as_key(spell(one.token_id)) for one in found],
        "token_logprobs": [one.logprob for one in found],
        "top_logprobs": [likeliest(one) for one in found],
        "text_offset": [one.offset for one in found],
    }


def _as_key(token: TokenSpelling) -> str:
    """A token where its text is all there is of it: parts of characters are marked, as this API marks them."""
    data = token.text.encode() if token.data is None else token.data
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"bytes:{token.text}"
