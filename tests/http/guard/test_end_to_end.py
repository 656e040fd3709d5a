"""The bundled pair as the model that watches, in front of a server of this project that runs the same model."""

from types import SimpleNamespace

import openai
import pytest

from monitor.http.door import HttpDoor
from monitor.http.guard.door import GuardDoor
from monitor.rpc.assembly import assemble
from monitor.rpc.server import Server, run_in_background
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
            yield SimpleNamespace(sidecar=sidecar, guard=guard, runtime=server._runtime)


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
