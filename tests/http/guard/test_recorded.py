"""The recorded server: whole answers, streams, and many requests on one connection."""

import json

import httpx2 as httpx
import pytest

from monitor.http.guard.recorded import recorded
from tests.http.conftest import DEADLINE


@pytest.fixture(scope="module")
def behind():
    with recorded(["one ", "twö"]) as found:
        yield found


def test_it_says_what_was_recorded(behind):
    server, url = behind
    with httpx.Client(trust_env=False, timeout=DEADLINE) as client:
        for number in range(2):
            whole = client.post(f"{url}/v1/chat/completions", json={}).json()
            assert whole["choices"][0]["message"]["content"] == "one twö"
            streamed = client.post(f"{url}/v1/chat/completions", json={"stream": True}).text
            data = [line.removeprefix("data: ") for line in streamed.splitlines() if line]
            assert data[-1] == "[DONE]"
            said = [json.loads(one)["choices"][0]["delta"].get("content") for one in data[:-1]]
            assert said == ["one ", "twö", None]
            assert server.asked == 2 * number + 2


def test_a_request_may_come_in_chunks():
    with recorded(lambda asked: [asked["messages"][0]["content"]]) as (_, url):
        body = (part for part in (b'{"messages": [{"con', b'tent": "hi"}]}'))
        with httpx.Client(trust_env=False, timeout=DEADLINE) as client:
            found = client.post(f"{url}/v1/chat/completions", content=body).json()
            assert found["choices"][0]["message"]["content"] == "hi"
            assert client.post(f"{url}/v1/chat/completions", json={"messages": [{"content": "b"}]}).is_success
