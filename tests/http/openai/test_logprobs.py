"""The two forms of log-probabilities in the OpenAI API."""

from monitor.http.openai import logprobs
from monitor.records import TokenLogprobs, TokenSpelling

SPELLED = {
    1: TokenSpelling(" a", b" a"),
    2: TokenSpelling("\\xf0\\x9f", b"\xf0\x9f"),
    3: TokenSpelling("</s>", None),
    4: TokenSpelling(" a", b" a"),
}
FOUND = [
    TokenLogprobs(7, 0, 1, -0.5, ((4, -0.25), (3, -2.0))),
    TokenLogprobs(8, 2, 2, -9999.0, ((2, -9999.0),)),
]


def test_a_chat_has_the_bytes_of_each_token():
    content = logprobs.of_chat(FOUND, SPELLED.__getitem__)["content"]
    first, second = content
    assert (first["token"], first["logprob"], first["bytes"]) == (" a", -0.5, [32, 97])
    assert [(one["token"], one["bytes"]) for one in first["top_logprobs"]] == [
        (" a", [32, 97]),
        ("</s>", None),
    ]
    assert (second["token"], second["bytes"]) == ("\\xf0\\x9f", [240, 159])
    assert logprobs.of_chat([], SPELLED.__getitem__) == {"content": [], "refusal": None}


def test_a_completion_marks_parts_of_characters_and_keeps_the_likelier_of_equal_texts():
    found = logprobs.of_completion(FOUND, SPELLED.__getitem__)
    assert found == {
        "tokens": [" a", "bytes:\\xf0\\x9f"],
        "token_logprobs": [-0.5, -9999.0],
        "top_logprobs": [{" a": -0.25, "</s>": -2.0}, {"bytes:\\xf0\\x9f": -9999.0}],
        "text_offset": [0, 2],
    }
