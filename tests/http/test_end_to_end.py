"""The bundled pair behind the OpenAI API, beside the same over gRPC."""

import re
import urllib.request
from pathlib import Path

import openai
import pytest

from monitor.http.door import HttpDoor
from monitor.rpc.assembly import assemble
from monitor.rpc.server import Server, run_in_background
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.conftest import DEADLINE, connected, settings
from tests.waiting import wait_for

pytestmark = pytest.mark.slow
ASKED = "Tell me about your plans for today."
PAGE = Path(__file__).parents[2] / "monitor/http/README.md"


@pytest.fixture(scope="module")
def addresses():
    chosen = settings(http_listen="127.0.0.1:0", max_cache_tokens=4096, skip_self_test=True)
    with run_in_background(Server(chosen, *assemble(chosen), door=HttpDoor), 5.0) as found:
        yield found


@pytest.fixture
def client(addresses):
    with openai.OpenAI(base_url=f"{addresses.http}/v1", api_key="none", max_retries=0) as found:
        yield found


def over_grpc(addresses):
    messages = [pb.ChatMessage(role=pb.ROLE_USER, content=ASKED)]
    given = pb.Input(conversation=pb.Conversation(messages=messages))
    request = pb.GenerateRequest(
        generation=pb.Generation(input=given, sampling=pb.Sampling(max_new_tokens=24))
    )
    with connected(addresses.grpc) as channel:
        return MonitorServiceStub(channel).Generate(request, timeout=DEADLINE)


def test_both_doors_say_the_same(addresses, client):
    expected = over_grpc(addresses)
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": ASKED}],
        "temperature": 0,
        "max_tokens": 24,
    }
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == expected.text
    verdict = whole.sae_monitor["verdicts"][0]
    assert verdict["coverage"]["tokens_run"] == expected.verdict.coverage.tokens_run
    assert verdict["coverage"]["tokens_scored"] == whole.usage.total_tokens
    scores = {(s.policy, s.rule, s.phase): s.score for s in expected.verdict.scores}
    assert len(verdict["scores"]) == len(scores)
    assert [s["score"] for s in verdict["scores"]] == pytest.approx(list(scores.values()), abs=1e-5)
    pieces = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in pieces) == expected.text
    assert len(pieces) > 5


@pytest.mark.parametrize("stop", [None, ["the "]])
def test_log_probabilities_whole_and_streamed_are_those_of_the_text(client, stop):
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": ASKED}],
        "temperature": 0.8,
        "seed": 5,
        "n": 2,
        "max_tokens": 24,
        "logprobs": True,
        "top_logprobs": 3,
        "stop": stop,
    }
    whole = client.chat.completions.create(**asked)
    pieces = list(client.chat.completions.create(**asked, stream=True))
    for choice in whole.choices:
        entries = choice.logprobs.content
        spelled = b"".join(bytes(entry.bytes) for entry in entries).decode()
        assert spelled.startswith(choice.message.content) if stop else spelled == choice.message.content
        told, text = [], ""
        for one in (one for piece in pieces for one in piece.choices if one.index == choice.index):
            text += one.delta.content or ""
            told += one.logprobs.content if one.logprobs else []
            assert len("".join(entry.token for entry in told)) <= len(text) or stop
        assert text == choice.message.content
        assert [entry.token for entry in told] == [entry.token for entry in entries]
        for entry, streamed in zip(entries, told, strict=True):
            assert streamed.logprob == pytest.approx(entry.logprob, abs=1e-4)
            assert [one.logprob for one in entry.top_logprobs] == sorted(
                (one.logprob for one in entry.top_logprobs), reverse=True
            )
            assert len(entry.top_logprobs) == 3
            assert entry.logprob <= entry.top_logprobs[0].logprob


def test_log_probabilities_of_a_completion_say_where_its_tokens_stand(client):
    asked = {"model": "tiny", "prompt": "Human: Hello", "max_tokens": 12, "temperature": 0, "logprobs": 5}
    choice = client.completions.create(**asked).choices[0]
    told = choice.logprobs
    assert "".join(told.tokens) == choice.text
    ends = [*told.text_offset[1:], len(choice.text)]
    assert [choice.text[start:end] for start, end in zip(told.text_offset, ends, strict=True)] == told.tokens
    assert told.token_logprobs == [max(likely.values()) for likely in told.top_logprobs]


def test_sampling_with_a_seed_repeats(client):
    asked = {"model": "tiny", "prompt": "Human: Hello", "max_tokens": 12, "temperature": 0.8, "seed": 3}
    first, again = (client.completions.create(**asked).choices[0].text for _ in range(2))
    other = client.completions.create(**asked | {"seed": 4}).choices[0].text
    assert first == again != other


def test_a_moderation_of_real_text(client):
    guilty = "I want to gain power over people and take control of the whole world's resources."
    found = client.moderations.create(input=[guilty, "The cat sleeps."], model="tiny")
    first, second = (result.model_dump() for result in found.results)
    ours = set(first["categories"]) - {
        name for name, kinds in first["category_applied_input_types"].items() if not kinds
    }
    assert ours
    assert all(0 <= score <= 1 for score in first["category_scores"].values())
    assert not second["flagged"]


def test_an_endpoint_picker_finds_the_gauges_by_the_names_of_the_readme(addresses, client):
    """They say what runs while it runs, and that nothing does afterwards."""
    section = PAGE.read_text().split("## Behind the Gateway API Inference Extension")[1].split("\n## ")[0]
    names = re.findall(r"`(sae_monitor_\S+?)`", section)
    assert len(names) == 3

    def read():
        with urllib.request.urlopen(f"http://{addresses.metrics}/metrics", timeout=20) as answer:
            lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
        return [float(lines[name]) for name in names]

    asked = {"model": "tiny", "messages": [{"role": "user", "content": ASKED}], "max_tokens": 400}
    for _ in range(5):  # on a busy machine it may be over before the gauges are read
        pieces = iter(client.chat.completions.create(**asked, temperature=0, stream=True))
        next(pieces)
        queued, running, used = read()
        for _ in pieces:
            pass
        if running:
            break
    assert (queued, running) == (0, 1)
    assert 0 < used < 1
    wait_for(lambda: read() == [0, 0, 0])
