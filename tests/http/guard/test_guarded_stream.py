"""Streams through the guard, as the client of the OpenAI API sees them."""

import dataclasses
import json
import random
import socket
import threading
import time

import httpx2 as httpx
import openai
import pytest

from monitor.policy.policyset import PolicySet
from monitor.records import Action, Mode, Phase
from tests.http.conftest import DEADLINE
from tests.http.guard.conftest import guarding, text_of
from tests.http.guard.upstream import chunk, streamed
from tests.rpc.fake import policies, policy
from tests.waiting import wait_for

WORDS = ["one ", "two", " three", " fo", "ur", "."]


def said_of(chunks):
    return chunks[-1].sae_monitor


def collect(stream, got):
    for found in stream:
        got.append(found)


def detections(chunks):
    said = ((c.model_extra or {}).get("sae_monitor") or {} for c in chunks[:-1])
    return [found for one in said for found in one.get("detections", ())]


def test_a_stream_comes_through_with_its_verdict(guard, behind):
    behind.streams(WORDS)
    chunks = list(guard.chat("hello there", stream=True))
    assert text_of(chunks) == "one two three four."
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {c.id for c in chunks} == {"chatcmpl-up"}
    said = said_of(chunks)
    assert (said["status"], said["action"], said["matched"]) == ("checked", "allow", False)
    assert (said["mode"], said["released_unread"]) == ("hold", 0)
    # Begin of text, the prompt's two words, and four of the answer.
    assert said["verdicts"][0]["coverage"] == {"tokens_run": 7, "tokens_scored": 7, "tokens_judged": 6}
    assert not guard.runtime.scorer.streams


def test_usage_stays_the_last_chunk_and_carries_the_verdict(guard, behind):
    behind.streams(WORDS, usage=True)
    chunks = list(guard.chat("hello", stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 3
    assert said_of(chunks)["status"] == "checked"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert sum("verdicts" in (c.model_extra or {}).get("sae_monitor", {}) for c in chunks) == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("line", [b"\n", b"\r\n"])
def test_chunks_may_be_cut_anywhere(guard, behind, line, seed):
    text = "naïve 日本語 words 👩‍👧 end"

    def script(reply):
        pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
        events = [json.dumps(chunk({"content": p}), ensure_ascii=False) for p in pieces]
        events = [*events, json.dumps(chunk({}, "length")), "[DONE]"]
        sent = b": keep" + 2 * line
        sent += b"".join(b"data:" + event.encode() + 2 * line for event in events)
        chance, at = random.Random(seed), 0
        reply.stream()
        while at < len(sent):
            size = chance.choice((1, 2, 7, 40, 200))
            reply.chunk(sent[at : at + size])
            at += size
        reply.end()

    behind.script = script
    chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks) == text
    assert chunks[-1].choices[0].finish_reason == "length"
    assert said_of(chunks)["verdicts"][0]["coverage"]["tokens_scored"] == 2 + len(text.split())


def test_what_a_policy_blocks_does_not_leave(behind):
    found = policy("weapons", 9, Action.BLOCK, refusal="I will not say that.")
    rule = dataclasses.replace(found.rules[0], phases=(Phase.RESPONSE,))
    chosen = PolicySet((dataclasses.replace(found, rules=(rule,)),), "sha256:" + "c" * 64)
    behind.gone.clear()

    def script(reply):
        reply.stream()
        for piece in ["one ", "two b", "om", "b th", "ree"]:
            reply.event(chunk({"content": piece}))
        behind.gone.set() if reply.closed() else None

    behind.script = script
    with guarding(behind, chosen) as guard:
        chunks = list(guard.chat("a question", stream=True))
        assert text_of(chunks).rstrip() == "one two"
        assert chunks[-1].choices[0].finish_reason == "content_filter"
        assert chunks[-1].choices[0].delta.refusal == "I will not say that."
        assert "bomb" not in "".join(c.model_dump_json() for c in chunks)
        said = said_of(chunks)
        assert (said["action"], said["verdicts"][0]["detections"][0]["phase"]) == ("block", "response")
        assert behind.gone.wait(30)  # the upstream server is not left writing
        assert guard.metric("verdicts_total", action="block") == 1


def test_a_word_in_pieces_does_not_leave_before_it_is_whole(guard, behind):
    behind.streams(["a ", "bo", "m", "b", " more"])
    chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks).strip() == "a"
    assert chunks[-1].choices[0].finish_reason == "content_filter"


def test_alerts_come_with_the_text_that_they_are_about(guard, behind):
    behind.streams(["a ", "lie ", "and ", "more"])
    chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks) == "a lie and more"
    (found,) = detections(chunks)
    assert (found["policy"], found["phase"]) == ("deception", "response")
    assert said_of(chunks)["action"] == "suppress"


def test_a_prompt_that_a_policy_blocks_never_reaches_the_upstream_server(guard, behind):
    behind.streams(WORDS)
    before = len(behind.asked)
    chunks = list(guard.chat("the bomb", stream=True, n=2))
    assert text_of(chunks) == ""
    ends = [c.choices[0] for c in chunks if c.choices[0].finish_reason]
    assert [(c.index, c.finish_reason) for c in ends] == [(0, "content_filter"), (1, "content_filter")]
    assert said_of(chunks)["action"] == "block"
    assert len(behind.asked) == before


def test_shadow_rules_are_told_and_do_nothing(behind):
    behind.streams(["a ", "bomb ", "more"])
    chosen = PolicySet((policy("weapons", 9, Action.BLOCK, mode=Mode.SHADOW),), "sha256:" + "d" * 64)
    with guarding(behind, chosen) as guard:
        chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks) == "a bomb more"
    said = said_of(chunks)
    assert (said["action"], said["matched"]) == ("allow", True)
    assert said["verdicts"][0]["detections"][0]["mode"] == "shadow"


def test_what_cannot_be_scored_ends_the_stream_where_a_policy_is_closed(guard, behind):
    behind.streams(["one ", "two ", "sick ", "three"], pause=0.02)
    with pytest.raises(openai.APIError, match="could not be served"):
        list(guard.chat("hello", stream=True))
    assert guard.metric("monitor_failures_total", cause="non_finite") >= 1


def test_what_cannot_be_scored_passes_as_unknown_where_all_are_open(behind):
    behind.streams(["one ", "sick ", "three"])
    with guarding(behind, policies(closed=False)) as guard:
        chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks) == "one sick three"
    said = said_of(chunks)
    assert (said["status"], said["verdicts"][0]["failure"]) == ("unknown", "non_finite")


def test_text_waits_for_its_score(guard, behind):
    behind.streams(["one ", "two ", "three ", "four"])
    got, gate = [], guard.runtime.scorer.gate
    asked = threading.Event()

    def script(reply):
        gate.clear()
        asked.set()
        streamed(["one ", "two ", "three"])(reply)

    behind.script = script

    def read():
        got.extend(guard.chat("hello", stream=True))

    reading = threading.Thread(target=read)
    reading.start()
    try:
        assert asked.wait(30)
        time.sleep(0.5)
        assert text_of(got) == ""
    finally:
        gate.set()
    reading.join(30)
    assert text_of(got) == "one two three"


@pytest.mark.parametrize("closed", [True, False])
def test_a_watching_model_that_hangs_is_told_from_a_clean_answer(behind, closed):
    with guarding(behind, policies(closed=closed), guard_read_seconds=0.3) as guard:
        gate = guard.runtime.scorer.gate

        def script(reply):
            gate.clear()
            streamed(["one ", "two ", "three"])(reply)

        behind.script = script
        try:
            if closed:
                with pytest.raises(openai.APIError, match="could not be served"):
                    list(guard.chat("hello", stream=True))
            else:
                chunks = list(guard.chat("hello", stream=True))
                assert text_of(chunks) == "one two three"
                assert said_of(chunks)["status"] == "unknown"
                assert guard.metric("fail_open_requests_total", cause="incomplete") == 1
        finally:
            gate.set()


def test_the_last_word_does_not_wait_for_a_slow_server(behind):
    times = []

    def script(reply):
        reply.stream()
        for piece in ["one", " two"]:
            reply.event(chunk({"content": piece}))
            time.sleep(0.6)
        times.append(time.monotonic())
        reply.event(chunk({}, "stop"))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    behind.script = script
    with guarding(behind, guard_settle_seconds=0.05) as guard:
        for found in guard.chat("hello", stream=True):
            if (found.choices[0].delta.content or "").endswith("two"):
                assert not times


@pytest.mark.parametrize("n", [2])
def test_choices_are_held_apart(guard, behind, n):
    def script(reply):
        reply.stream()
        pieces = [("safe ", "the "), ("words ", "bomb "), ("go ", "and "), ("on", "more")]
        for first, second in pieces:
            reply.event(chunk({"content": first}))
            reply.event(chunk({"content": second}, index=1))
        reply.event(chunk({}, "stop"))
        reply.event(chunk({}, "stop", index=1))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    behind.script = script
    chunks = list(guard.chat("hello", stream=True, n=n))
    texts, ends = {0: "", 1: ""}, {}
    for found in chunks:
        for choice in found.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends.get(choice.index)
    assert (texts[0], texts[1].strip()) == ("safe words go on", "the")
    assert ends == {0: "stop", 1: "content_filter"}
    said = said_of(chunks)
    assert [v["action"] for v in said["verdicts"]] == ["allow", "block"]


def test_sampling_lets_so_many_tokens_leave_between_checks(behind):
    words = [f"w{n} " for n in range(30)]
    behind.streams([*words[:10], "bomb ", *words[10:]], pause=0.005)
    with guarding(behind, guard_mode="sample", guard_sample_tokens=4) as guard:
        chunks = list(guard.chat("hello", stream=True))
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    said = said_of(chunks)
    assert (said["mode"], said["sample_tokens"], said["action"]) == ("sample", 4, "block")
    assert said["released_unread"] > 0
    assert len(text_of(chunks).split()) <= 10 + 4 + 2


def test_checking_at_the_end_lets_all_leave_and_says_so(behind):
    behind.streams(["a ", "bomb ", "more"], pause=0.01)
    with guarding(behind, guard_mode="end") as guard:
        chunks = list(guard.chat("hello", stream=True))
    assert "bomb" in text_of(chunks)
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    said = said_of(chunks)
    assert (said["mode"], said["action"]) == ("end", "block")
    assert said["released_unread"] > 0


def test_a_connection_that_breaks_is_told(guard, behind):
    def script(reply):
        reply.stream()
        for piece in ["one ", "two ", "three"]:
            reply.event(chunk({"content": piece}))
        time.sleep(0.1)
        reply.connection.shutdown(socket.SHUT_RDWR)

    behind.script = script
    got, stream = [], guard.chat("hello", stream=True)
    with pytest.raises(openai.APIError, match="before it was complete"):
        collect(stream, got)
    assert text_of(got) == "one two three"
    assert not guard.runtime.scorer.streams


def test_a_stream_without_an_end_is_told(guard, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "one"}))
        reply.end()

    behind.script = script
    with pytest.raises(openai.APIError, match="before it was complete"):
        list(guard.chat("hello", stream=True))


def test_a_stream_that_only_lacks_its_last_mark_ends_well(guard, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "one"}))
        reply.event(chunk({}, "stop"))
        reply.end()

    behind.script = script
    chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks) == "one"
    assert said_of(chunks)["status"] == "checked"


def test_silence_is_a_gateway_timeout(behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "one "}))
        assert reply.closed()

    behind.script = script
    silent = pytest.raises(openai.APIError, match="nothing for too long")
    with guarding(behind, upstream_silence_seconds=0.4) as guard, silent:
        list(guard.chat("hello", stream=True))


def test_an_error_in_mid_stream_is_passed_on(guard, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "one"}))
        reply.event({"error": {"message": "out of memory", "type": "server_error", "code": 500}})
        reply.end()

    behind.script = script
    with pytest.raises(openai.APIError, match="out of memory"):
        list(guard.chat("hello", stream=True))


def test_an_event_that_is_no_json_is_an_error(guard, behind):
    def script(reply):
        reply.stream()
        reply.chunk(b"data: {nonsense\n\n")
        reply.end()

    behind.script = script
    with pytest.raises(openai.APIError, match="cannot be read"):
        list(guard.chat("hello", stream=True))


def test_a_caller_who_leaves_ends_the_upstream_answer(guard, behind):
    left = threading.Event()

    def script(reply):
        reply.stream()
        try:
            for number in range(2000):
                reply.event(chunk({"content": f"word{number} "}))
                time.sleep(0.01)
        except OSError:
            left.set()

    behind.script = script
    stream = guard.chat("hello", stream=True)
    next(iter(stream))
    stream.close()
    assert left.wait(30)
    wait_for(lambda: not guard.runtime.scorer.streams)


def test_a_slow_caller_slows_the_upstream_server(guard, behind):
    sent = []

    def script(reply):
        reply.stream()
        for number in range(4000):
            reply.event(chunk({"content": f"word{number} " + "x" * 3000 + " "}))
            sent.append(number)

    behind.script = script
    url = f"{guard.addresses.http}/v1/chat/completions"
    body = {"model": "up", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    with (
        httpx.Client(trust_env=False, timeout=DEADLINE) as client,
        client.stream("POST", url, json=body) as answer,
    ):
        next(answer.iter_raw())
        wait_for(lambda: len(sent) > 10)
        before = -1
        while before != len(sent):
            before = len(sent)
            time.sleep(0.5)
        assert before < 4000  # what nobody reads is not fetched
    wait_for(lambda: not guard.runtime.scorer.streams)


def test_thoughts_and_calls_of_tools_are_scored_in_their_order(guard, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"role": "assistant", "reasoning_content": "let me "}))
        reply.event(chunk({"reasoning_content": "think"}))
        reply.event(chunk({"content": "Answer."}))
        call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "run", "arguments": ""}}
        reply.event(chunk({"tool_calls": [call]}))
        for part in ('{"what": "bo', 'mb"}', " bomb"):
            reply.event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}))
        reply.event(chunk({}, "tool_calls"))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    behind.script = script
    chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks) == "Answer."
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    sent = "".join(c.model_dump_json() for c in chunks)
    assert " bomb" not in sent
    assert "think" in sent


def calling(*pieces, pause=0.0):
    """A stream of calls: which one a piece is of, and its arguments."""

    def script(reply):
        reply.stream()
        reply.event(chunk({"role": "assistant", "content": "So."}))
        for index in sorted({index for index, _ in pieces}):
            call = {"index": index, "id": f"c{index}", "function": {"name": f"f{index}", "arguments": ""}}
            reply.event(chunk({"tool_calls": [call]}))
        for index, text in pieces:
            time.sleep(pause)
            reply.event(chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]}))
        reply.event(chunk({}, "tool_calls"))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    return script


def arguments(chunks):
    """The arguments of every call, as a client library joins them."""
    found = {}
    for one in (call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or ()):
        found[one.index] = found.get(one.index, "") + (one.function.arguments or "")
    return found


def test_calls_in_turn_come_through_each_with_its_verdict(guard, behind):
    behind.script = calling((0, "one t"), (1, "three fo"), (0, "wo"), (1, "ur lie "), (0, " end"))
    chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks) == "So."
    assert arguments(chunks) == {0: "one two end", 1: "three four lie "}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    verdicts = said_of(chunks)["verdicts"]
    assert [(v.get("choice"), v.get("text")) for v in verdicts] == [
        (None, None),
        (0, "tool_calls[0]"),
        (0, "tool_calls[1]"),
    ]
    # Begin of text and prompt in each; then what is said, a name and three words, a name and three words.
    assert [v["coverage"]["tokens_scored"] for v in verdicts] == [3, 6, 6]
    (found,) = verdicts[2]["detections"]
    assert (found["phase"], found["position"]) == ("response", 5)
    assert [one.get("text") for one in detections(chunks)] == ["tool_calls[1]"]
    assert said_of(chunks)["released_unread"] == 0


@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_a_call_in_pieces_between_those_of_another_is_blocked(guard, behind, pause):
    pieces = [(0, "go bo"), (1, "fine "), (0, "mb"), (1, "and more "), (0, " now"), (1, "of it")]
    behind.script = calling(*pieces, pause=pause)
    chunks = list(guard.chat("hello", stream=True))
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    sent = "".join(c.model_dump_json() for c in chunks)
    assert "mb" not in sent
    assert said_of(chunks)["action"] == "block"
    assert not guard.runtime.scorer.streams


def test_another_choice_goes_on_where_a_call_is_blocked(guard, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "fine and"}))
        reply.event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "a bomb is"}}]}))
        for text in ("one ", "two ", "three"):
            reply.event(chunk({"content": text}, index=1))
            reply.event(chunk({"content": " more"}))
            time.sleep(0.05)
        reply.event(chunk({}, "stop", index=1))
        reply.event(chunk({}, "tool_calls"))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    behind.script = script
    chunks = list(guard.chat("hello", stream=True, n=2))
    said = ["", ""]
    for one in (choice for c in chunks for choice in c.choices):
        said[one.index] += one.delta.content or ""
    assert said == ["fine", "one two three"]
    ends = {one.index: one.finish_reason for c in chunks for one in c.choices if one.finish_reason}
    assert ends == {0: "content_filter", 1: "stop"}


@pytest.mark.parametrize("closed", [True, False])
def test_sound_in_an_answer_is_not_checked(behind, closed):
    def script(reply):
        reply.stream()
        reply.event(chunk({"audio": {"data": "AAAA", "transcript": "hello"}}))
        reply.event(chunk({}, "stop"))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    behind.script = script
    with guarding(behind, policies(closed=closed)) as guard:
        if closed:
            with pytest.raises(openai.APIError, match="could not be served"):
                list(guard.chat("hello", stream=True))
        else:
            said = said_of(list(guard.chat("hello", stream=True)))
            assert (said["status"], said["verdicts"][0]["failure"]) == ("unknown", "left_out")


def test_the_word_of_an_upstream_monitor_is_not_taken_for_ours(guard, behind):
    def script(reply):
        reply.stream("x-sae-monitor-status: checked", "x-request-id: of-upstream")
        reply.event(chunk({"content": "one"}, sae_monitor={"detections": ["theirs"]}))
        reply.event(chunk({}, "stop", sae_monitor={"status": "theirs"}))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    behind.script = script
    raw = guard.client().chat.completions.with_raw_response.create(
        model="up", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    assert raw.headers["x-request-id"] == "of-upstream"
    assert "x-sae-monitor-status" not in raw.headers
    chunks = list(raw.parse())
    assert said_of(chunks)["status"] == "checked"
    assert chunks[-1].sae_monitor_upstream == {"status": "theirs"}


def of_tokens(*tokens):
    return {"content": [{"token": token, "logprob": -0.5, "top_logprobs": []} for token in tokens]}


@pytest.mark.parametrize(("word", "leaves"), [("bomb", "so the"), ("boat", "so the boat x")])
def test_log_probabilities_do_not_run_ahead_of_their_text(guard, behind, word, leaves):
    events = [
        ("so", of_tokens("so")),
        (" the", of_tokens(" the")),
        ("", of_tokens(" bo", word[2:])),
        ("", of_tokens(" x")),
        (f" {word} x", None),
    ]

    def script(reply):
        reply.stream()
        for text, given in events:
            event = chunk({"content": text})
            event["choices"][0]["logprobs"] = given
            reply.event(event)
        ended(reply)

    behind.script = script
    chunks = list(guard.chat("hello", stream=True, logprobs=True))
    said, named = "", ""
    for found in (choice for c in chunks for choice in c.choices):
        said += found.delta.content or ""
        named += "".join(one.token for one in (found.logprobs and found.logprobs.content) or ())
        assert said.startswith(named)
    assert named == leaves
    assert "omb" not in "".join(c.model_dump_json() for c in chunks)


def test_streams_of_completions(guard, behind):
    def script(reply):
        reply.stream()
        for piece in ["so ", "the ", "bomb ", "went"]:
            reply.event({"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": piece}]})
        reply.closed()

    behind.script = script
    chunks = list(guard.client().completions.create(model="up", prompt="a prompt", stream=True))
    assert "".join(c.choices[0].text for c in chunks).strip() == "so the"
    assert chunks[-1].choices[0].finish_reason == "content_filter"


def ended(reply):
    reply.event(chunk({}, "stop"))
    reply.chunk(b"data: [DONE]\n\n")
    reply.end()


def test_text_beside_the_choices_is_scored_too(guard, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "fine "}, search_results=[{"title": "a bomb here"}]))
        ended(reply)

    behind.script = script
    chunks = list(guard.chat("hello", stream=True))
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert "bomb" not in "".join(c.model_dump_json() for c in chunks)


def test_what_leaves_is_what_was_read(guard, behind):
    """A field that is there twice, and lines of an event that are not its data, could say what nobody scored."""

    def script(reply):
        reply.stream()
        reply.chunk(b": a bomb\n\n")
        choice = b'{"index": 0, "delta": {"content": "a bomb"}, "delta": {"content": "fine"}}'
        reply.chunk(b'event: bomb\nid: bomb\ndata: {"choices": [' + choice + b"]}\n\n")
        ended(reply)

    behind.script = script
    body = {"model": "up", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    found = guard.post("/v1/chat/completions", body).text
    assert "fine" in found
    assert "bomb" not in found
    assert found.startswith(":\n\n")


@pytest.mark.parametrize(
    "event",
    [
        {"choices": {"text": "a bomb"}},
        {"choices": ["a bomb"]},
        {"choices": [{"index": 5, "delta": {"content": "x"}}]},
        ["a bomb"],
    ],
)
def test_events_of_another_form_are_not_passed_on(guard, behind, event):
    def script(reply):
        reply.stream()
        reply.event(event)
        ended(reply)

    behind.script = script
    with pytest.raises(openai.APIError, match="cannot be read"):
        list(guard.chat("hello", stream=True))


def test_an_error_while_a_word_is_awaited_is_told_as_it_is(guard, behind):
    """Nothing comes from upstream meanwhile, so that reading from there has to be given up."""

    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "sick"}))
        assert reply.closed()

    behind.script = script
    with pytest.raises(openai.APIError, match="could not be served"):
        list(guard.chat("hello", stream=True))


def test_text_that_stands_in_no_choice_is_cut_where_it_is_blocked(guard, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "fine "}))
        reply.event(chunk({}) | {"choices": [], "note": "a bomb "})
        reply.event(chunk({}) | {"choices": None, "note": " another bomb"})
        ended(reply)

    behind.script = script
    chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks).strip() == "fine"
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert "bomb" not in "".join(c.model_dump_json() for c in chunks)


def test_what_a_server_quotes_in_an_error_is_scored_too(guard, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "fine "}))
        reply.event({"error": {"message": "no such tool", "failed_generation": "a bomb"}})
        reply.end()

    behind.script = script
    body = {"model": "up", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    found = guard.post("/v1/chat/completions", body).text
    assert "no such tool" in found
    assert "bomb" not in found


def test_a_choice_that_stands_twice_in_an_event_is_not_passed_on(guard, behind):
    def script(reply):
        reply.stream()
        twice = [{"index": 0, "delta": {"content": text}} for text in ("one bo", "mb two ")]
        reply.event(chunk({}) | {"choices": twice})
        ended(reply)

    behind.script = script
    with pytest.raises(openai.APIError, match="cannot be read"):
        list(guard.chat("hello", stream=True))


def test_a_chunk_of_which_two_texts_are_said_is_cut_as_a_whole(guard, behind):
    def script(reply):
        reply.stream()
        both = {"index": 0, "text": "one bomb two ", "delta": {"content": "bomb lie "}}
        reply.event(chunk({}) | {"choices": [both]})
        ended(reply)

    behind.script = script
    chunks = list(guard.chat("hello", stream=True))
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert "bom" not in "".join(c.model_dump_json() for c in chunks)


def test_half_characters_leave_as_they_were_read(guard, behind):
    def script(reply):
        reply.stream()
        for piece in (r"one \ud83d", r"\ude00 two"):
            choice = f'{{"index": 0, "delta": {{"content": "{piece}"}}}}'
            reply.chunk(f'data: {{"choices": [{choice}]}}\n\n'.encode())
        ended(reply)

    behind.script = script
    chunks = list(guard.chat("hello", stream=True))
    assert text_of(chunks) == "one \ufffd\ufffd two"
    assert said_of(chunks)["status"] == "checked"


@pytest.mark.parametrize("begins", [False, True], ids=["knows no n", "breaks off"])
def test_choices_that_never_began_are_not_missed_and_those_that_did_are(guard, behind, begins):
    """`transformers serve` knows no `n`, and ends a stream without `[DONE]`."""

    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "one two"}))
        if begins:
            reply.event(chunk({"content": "thr"}, index=1))
        reply.event(chunk({}, "stop"))
        reply.end()

    behind.script = script
    got = []
    if begins:
        with pytest.raises(openai.APIError, match="before it was complete"):
            collect(guard.chat("hello", stream=True, n=2), got)
    else:
        collect(guard.chat("hello", stream=True, n=2), got)
        assert said_of(got)["status"] == "checked"
    assert (
        "".join(c.choices[0].delta.content or "" for c in got if c.choices and c.choices[0].index == 0)
        == "one two"
    )
