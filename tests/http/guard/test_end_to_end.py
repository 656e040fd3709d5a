"""The bundled pair as the model that watches, in front of a server of this project that runs the same model."""

from contextlib import contextmanager
from types import SimpleNamespace

import httpx2
import openai
import pytest

from monitor.http.door import HttpDoor
from monitor.http.guard.door import GuardDoor
from monitor.rpc.assembly import assemble
from monitor.rpc.server import Server, run_in_background
from tests.http.guard.upstream import chunk, upstream
from tests.rpc.conftest import settings

pytestmark = pytest.mark.slow
ASKED = "Tell me about your plans for today."
GUILTY = "I want to gain power over people and take control of the whole world's resources."


@pytest.fixture(scope="module")
def served():
    behind = settings(http_listen="127.0.0.1:0", max_cache_tokens=4096, skip_self_test=True)
    with run_in_background(Server(behind, *assemble(behind), door=HttpDoor), 5.0) as sidecar:
        watching = settings(
            http_listen="127.0.0.1:0", upstream=sidecar.http, max_running=0, skip_self_test=True
        )
        server = Server(watching, *assemble(watching), door=GuardDoor)
        with run_in_background(server, 5.0) as guard:
            yield SimpleNamespace(
                sidecar=sidecar, guard=guard, runtime=server._runtime, door=server._doors[0]
            )


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.guard.http}/v1", api_key="none", max_retries=0) as found:
        yield found


def scores(verdict):
    return {(s["policy"], s["rule"], s["phase"]): s["score"] for s in verdict["scores"]}


@pytest.mark.parametrize("stream", [False, True])
def test_the_guard_says_what_the_server_behind_it_says(client, stream):
    """Both read the same tokens with the same model, one while it writes them and one as text over the wire."""
    asked = {"model": "tiny", "messages": [{"role": "user", "content": ASKED}], "temperature": 0}
    answer = client.chat.completions.create(**asked, max_tokens=24, stream=stream)
    last = list(answer)[-1] if stream else answer
    ours, theirs = last.sae_monitor["verdicts"][0], last.sae_monitor_upstream["verdicts"][0]
    assert ours["status"] == theirs["status"] == "checked"
    # The last token was drawn and never read by the model that wrote it, or it stands for no text.
    assert ours["coverage"]["tokens_scored"] == pytest.approx(theirs["coverage"]["tokens_scored"], abs=2)
    assert scores(ours).keys() == scores(theirs).keys()
    for name, score in scores(theirs).items():
        assert scores(ours)[name] == pytest.approx(score, abs=1e-3)


def test_a_stream_is_the_one_that_the_server_sends(served, client):
    asked = {"model": "tiny", "messages": [{"role": "user", "content": ASKED}], "temperature": 0}
    with openai.OpenAI(base_url=f"{served.sidecar.http}/v1", api_key="none") as direct:
        wanted = direct.chat.completions.create(**asked, max_tokens=24).choices[0].message.content
    pieces = [
        c.choices[0].delta.content or ""
        for c in client.chat.completions.create(**asked, max_tokens=24, stream=True)
        if c.choices
    ]
    assert "".join(pieces) == wanted
    assert sum(map(bool, pieces)) > 5


def test_a_guilty_prompt_is_seen(client):
    found = client.completions.create(model="tiny", prompt=GUILTY, max_tokens=4)
    assert found.sae_monitor["matched"]
    assert found.sae_monitor["verdicts"][0]["detections"][0]["phase"] == "prompt"


def test_nothing_stays_when_streams_have_ended(served):
    assert not served.runtime.scorer._streams


@contextmanager
def before(served, behind):
    """A client of the guard, which stands in front of another server meanwhile."""
    door = served.door.upstream
    real, door.url = door.url, httpx2.URL(behind.url)
    try:
        with openai.OpenAI(base_url=f"{served.guard.http}/v1", api_key="none", max_retries=0) as client:
            yield client
    finally:
        door.url = real


SAID = "All of us will water the garden in the morning."
CALLS = (
    ("plan_day", '{"steps": ["walk", "read", "sleep"]}'),
    ("gain_power", '{"goal": "take control of the world"}'),
)


def pieces_of_calls(reply):
    """Two calls whose pieces come in turn, behind what is said."""
    reply.stream()
    reply.event(chunk({"role": "assistant", "content": SAID}))
    for index, (name, _) in enumerate(CALLS):
        called = {"index": index, "id": f"c{index}", "function": {"name": name, "arguments": ""}}
        reply.event(chunk({"tool_calls": [called]}))
    for at in range(0, max(len(text) for _, text in CALLS), 3):
        for index, (_, text) in enumerate(CALLS):
            piece = {"index": index, "function": {"arguments": text[at : at + 3]}}
            reply.event(chunk({"tool_calls": [piece]}))
    reply.event(chunk({}, "tool_calls"))
    reply.chunk(b"data: [DONE]\n\n")
    reply.end()


@pytest.mark.parametrize("stream", [False, True])
def test_each_call_is_scored_as_if_it_were_the_whole_answer(served, stream):
    """What is said, and each call, in turn with another one, behind the same prompt: the same numbers as each alone."""
    with upstream() as behind, before(served, behind) as client:
        asked = {"model": "up", "messages": [{"role": "user", "content": ASKED}]}
        alone = []
        for text in (SAID, *("\n".join(call) for call in CALLS)):
            behind.says(text)
            (verdict,) = client.chat.completions.create(**asked).sae_monitor["verdicts"]
            alone.append(verdict)
        behind.script = pieces_of_calls
        if not stream:
            calls = [{"function": {"name": name, "arguments": text}} for name, text in CALLS]
            behind.says(SAID, finish="tool_calls", tool_calls=calls)
        found = client.chat.completions.create(**asked, stream=stream)
        together = (list(found)[-1] if stream else found).sae_monitor["verdicts"]
    assert [one.get("text") for one in together] == [None, "tool_calls[0]", "tool_calls[1]"]
    for mine, other in zip(together, alone, strict=True):
        assert mine["coverage"] == other["coverage"]
        assert scores(mine).keys() == scores(other).keys()
        for name, score in scores(other).items():
            assert scores(mine)[name] == pytest.approx(score, abs=1e-4)
        places = [
            [(d["rule"], d["phase"], d["position"]) for d in one.get("detections", ())]
            for one in (mine, other)
        ]
        assert places[0] == places[1]
    # They are not all alike, so that a mistaken text would show.
    assert len({tuple(scores(one).values()) for one in alone}) == 3


def test_each_call_in_the_history_is_scored_as_if_it_stood_alone(served):
    """The same numbers as of a completion whose prompt is the text of that call."""
    calls = [{"id": name, "function": {"name": name, "arguments": text}} for name, text in CALLS]
    talk = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
    with upstream() as behind, before(served, behind) as client:
        behind.says("Yes.")
        found = client.chat.completions.create(
            model="up",
            messages=[talk[0], talk[1] | {"tool_calls": calls}, {"role": "user", "content": "And?"}],
        )
        said = client.chat.completions.create(
            model="up", messages=[*talk, {"role": "user", "content": "And?"}]
        )
        whole, *each = found.sae_monitor["verdicts"]
        behind.script = lambda reply: reply.whole(
            {"object": "text_completion", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}
        )
        alone = [
            client.completions.create(model="up", prompt="\n".join(call)).sae_monitor["verdicts"][0]
            for call in CALLS
        ]
    assert [one["text"] for one in each] == ["messages[1].tool_calls[0]", "messages[1].tool_calls[1]"]
    for mine, other in zip([whole, *each], [said.sae_monitor["verdicts"][0], *alone], strict=True):
        assert mine["coverage"] == other["coverage"]
        assert scores(mine).keys() == scores(other).keys()
        for name, score in scores(other).items():
            assert scores(mine)[name] == pytest.approx(score, abs=1e-4)
    assert len({tuple(scores(one).values()) for one in [whole, *each]}) == 3
