"""Streams through the guard, as the client of the OpenAI API sees them."""

from tests.http.guard.conftest import text_of

WORDS = ["one ", "two", " three", " fo", "ur", "."]


def test_a_stream_comes_through_with_its_verdict(guard, behind):
    behind.streams(WORDS)
    chunks = list(guard.chat("hello there", stream=True))
    assert text_of(chunks) == "one two three four."
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
    assert all(c.id == "chatcmpl-up" for c in chunks)
    said = chunks[-1].sae_monitor
    assert (said["status"], said["action"], said["mode"], said["released_unread"]) == (
        *("checked", "allow", "hold"),
        0,
    )
    # Begin of text, the prompt's two words, and four of the answer.
    assert said["verdicts"][0]["coverage"] == {"tokens_run": 7, "tokens_scored": 7, "tokens_judged": 6}
    assert not guard.runtime.scorer.streams
