"""What the contracts share."""

import asyncio
import json
from types import SimpleNamespace

import httpx2
import pytest

from monitor.errors import BadRequest, Violation
from monitor.guard.openai_texts import conversation, message
from monitor.http.contracts.judgement import ContractJudge, Judged, calls_of, turns_of, worst
from monitor.http.door import HttpDoor
from monitor.records import Action
from monitor.rpc.access.call_interceptor import Call, enter
from monitor.rpc.assembly import assemble
from monitor.rpc.server import Server, run_in_background
from monitor.rpc.wire.requests import Input
from monitor.telemetry.metrics.guard import WaitMetrics
from tests.http.conftest import DEADLINE, serving
from tests.rpc.conftest import settings
from tests.rpc.fake import FakeRuntime, policies


def calls(*names):
    return [{"id": n, "function": {"name": n, "arguments": f"of {n}"}} for n in names]


def test_calls_are_inputs_of_their_own_like_the_one_beside_them():
    read = message({"role": "assistant", "content": "hm", "tool_calls": calls("f", "g")}, "m")
    like = Input("m", turns_of(read), truncate=False, session="s", answer=True, unread=1)
    assert like.content == "hm"
    assert [(one.path, one.content, one.session, one.answer, one.unread) for one in calls_of(read, like)] == [
        ("m.tool_calls[0]", "f\nof f", "s", True, 0),
        ("m.tool_calls[1]", "g\nof g", "s", True, 0),
    ]
    talk = conversation([{"role": "user", "content": "a"}])
    assert turns_of(talk) == [{"role": "user", "content": "a"}]


@pytest.mark.parametrize("parts", [("the bo", "mb"), ("the", "bomb")])
def test_a_word_over_two_parts_of_a_message_is_read_whole_and_two_words_are_two(served, parts):
    messages = [{"role": "user", "content": [{"type": "text", "text": text} for text in parts]}]
    asked = served.post("/request", {"body": {"messages": messages}}).json()
    assert asked["action"]["status_code"] == 403
    body = {"input_type": "request", "texts": list(parts), "structured_messages": messages}
    assert served.post("/beta/litellm_basic_guardrail_api", body).json()["action"] == "BLOCKED"
    found = served.post("/api/v1/text/chat", {"messages": messages}, headers={"detector-id": "sae-monitor"})
    assert [one["detection"] for one in found.json()] == ["weapons/word"]


def test_the_worst_of_several_is_the_one_that_is_blocked():
    unscored = Judged(None)
    passed = Judged(SimpleNamespace(verdict=SimpleNamespace(action=Action.ALLOW)))
    assert worst([passed, unscored]) is unscored
    assert worst([passed, passed]) is passed


class Counting:
    """Scores anything, and counts how many at once."""

    now = most = 0

    async def score(self, given):
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return SimpleNamespace(verdict=SimpleNamespace(action=Action.ALLOW, status=given.content))


def test_a_conversation_of_many_calls_takes_few_places_in_the_queue():
    runs = Counting()
    inputs = [Input("x", str(number), truncate=False) for number in range(100)]

    async def judged():
        enter(Call("WebhookRequest", "r", 0.0))
        return await ContractJudge(runs, WaitMetrics(), "webhook")(inputs)

    found = asyncio.run(judged())
    assert [one.scored.verdict.status for one in found] == [str(number) for number in range(100)]
    assert runs.most == 16


class Plain(FakeRuntime):
    """A model whose chat template takes no conversation."""

    def tokenise(self, content, **options):
        if not isinstance(content, str):
            raise BadRequest(Violation("conversation", "this model has no chat template"))
        return super().tokenise(content, **options)


def test_a_conversation_that_the_template_refuses_is_read_as_text():
    chosen = policies()
    with serving(Plain(chosen.watch), chosen) as running:
        body = {
            "body": {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "bomb"}]}
        }
        assert "status_code" in running.post("/request", body).json()["action"]


SAID = "All of us will water the garden in the morning."
CALLS = (
    ("plan_day", '{"steps": ["walk", "read", "sleep"]}'),
    ("gain_power", '{"goal": "take control of the world"}'),
)
ASKED = {"role": "user", "content": "Tell me about your plans for today."}


def made(*numbers, said=SAID):
    """An assistant's message with some of the calls."""
    found = [{"id": "1", "type": "function", "function": {"name": n, "arguments": a}} for n, a in CALLS]
    return {"role": "assistant", "content": said, "tool_calls": [found[number] for number in numbers]}


def of_request(message):
    return "/request", {"body": {"messages": [ASKED, message, ASKED]}}


def of_response(message):
    return "/response", {"body": {"choices": [{"message": message}]}}


def of_litellm(message):
    whole = {"input_type": "request", "structured_messages": [ASKED, message, ASKED], "texts": ["x"]}
    return "/beta/litellm_basic_guardrail_api", whole | {"tool_calls": message["tool_calls"]}


def of_litellm_answer(message):
    said = {"input_type": "response", "texts": [message["content"]], "tool_calls": message["tool_calls"]}
    return "/beta/litellm_basic_guardrail_api", said


def of_chat(message):
    return "/api/v1/text/chat", {"messages": [ASKED, message]}


def of_earlier_chat(message):
    return "/api/v1/text/chat", {"messages": [ASKED, message, ASKED]}


CONTRACTS = (of_request, of_response, of_litellm, of_litellm_answer, of_chat, of_earlier_chat)


@pytest.fixture(scope="module")
def logging(tmp_path_factory):
    """The bundled pair behind all contracts, and what it scores: the decisions of a request, each with its scores."""
    folder = tmp_path_factory.mktemp("decisions")
    chosen = settings(
        http_listen="127.0.0.1:0",
        max_running=0,
        skip_self_test=True,
        decision_log=str(folder),
        decision_log_records="all",
    )
    with run_in_background(Server(chosen, *assemble(chosen), door=HttpDoor), 5.0) as addresses:
        seen = 0

        def post(path, body):
            nonlocal seen
            answer = httpx2.post(f"{addresses.http}{path}", json=body, trust_env=False, timeout=DEADLINE)
            assert answer.status_code == 200, answer.text
            lines = [
                json.loads(line) for one in folder.glob("*.jsonl*") for line in one.read_text().splitlines()
            ]
            records = [line for line in lines if line.get("kind") == "decision"]
            seen, before = len(records), seen
            return records[before:]

        yield post


def scored(records):
    return sorted(
        [sorted((s["policy"], s["rule"], s["phase"], s["score"]) for s in one["scores"]) for one in records],
        key=str,
    )


@pytest.mark.slow
@pytest.mark.parametrize("contract", CONTRACTS)
def test_each_call_is_scored_as_if_it_were_the_only_one(logging, contract):
    """Beside another one, and behind what is said, a call has the numbers that it has alone."""
    nothing = scored(logging(*contract(made())))
    alone = [scored(logging(*contract(made(number)))) for number in (0, 1)]
    both = scored(logging(*contract(made(0, 1))))
    calls = []
    for found in alone:
        (one,) = without(found, nothing)
        calls.append(one)
    left = without(both, nothing)
    assert len(left) == 2
    for wanted in calls:
        assert any(same(one, wanted) for one in left)
    assert not same(*calls)  # a mistaken text would show


def without(found, others):
    """What is left of these where the others were taken away, each of which must be among them."""
    left = list(found)
    for other in others:
        left.remove(next(one for one in left if same(one, other)))
    return left


def same(one, other):
    return [s[:3] for s in one] == [s[:3] for s in other] and [s[3] for s in one] == pytest.approx(
        [s[3] for s in other], abs=1e-4
    )
