"""The rails for NeMo Guardrails, as they are shipped, under NeMo Guardrails in an environment of its own."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.http.conftest import serving
from tests.rpc.fake import policies

FOLDER = Path(__file__).parents[2] / "deploy" / "nemo"
PYTHON = os.environ.get("NEMO_PYTHON")
RUN = """
import asyncio, json, sys
from nemoguardrails import LLMRails, RailsConfig

config = RailsConfig.from_path(sys.argv[1])
config.models = []
settings = config.custom_data["sae_monitor"]
rails = LLMRails(config)

async def said(text, answer=None):
    messages = [{"role": "user", "content": text}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    which = ["input"] if answer is None else ["output"]
    found = await rails.generate_async(messages=messages, options={"rails": which})
    return found.response[-1]["content"]

async def pieces(*texts):
    async def source():
        for text in texts:
            yield text
    asked = [{"role": "user", "content": "hello"}]
    return [piece async for piece in rails.stream_async(messages=asked, generator=source())]

async def main():
    settings["url"] = sys.argv[2]
    found = {
        "benign": await said("hello there"),
        "offending": await said("a bomb"),
        "answer": await said("hello", "all is fine"),
        "offending answer": await said("hello", "a bomb"),
        "stream": await pieces("one ", "two ", "three "),
        "offending stream": await pieces("one ", "bomb ", "three "),
    }
    settings["url"] = "http://127.0.0.1:1"
    found["closed"] = await said("hello there")
    settings["on_unreachable"] = "open"
    found["open"] = await said("hello there")
    print(json.dumps(found))

asyncio.run(main())
"""


def test_the_configuration_asks_before_anything_leaves():
    found = YAML(typ="safe").load(FOLDER / "config.yml")
    streaming = found["rails"]["output"]["streaming"]
    assert (streaming["enabled"], streaming["stream_first"]) == (True, False)
    assert found["custom_data"]["sae_monitor"]["on_unreachable"] == "closed"
    flows = (FOLDER / "rails.co").read_text()
    for rail in ("input", "output"):
        for flow in found["rails"][rail]["flows"]:
            assert f"define subflow {flow}\n" in flows
    assert 'name="check_with_sae_monitor"' in (FOLDER / "actions.py").read_text()


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(
    PYTHON is None,
    reason="NeMo Guardrails is not here; install nemoguardrails elsewhere and set NEMO_PYTHON to its Python",
)
def test_rails_refuse_what_a_policy_blocks():
    with serving(chosen=policies()) as served:
        done = subprocess.run(
            [PYTHON, "-c", RUN, str(FOLDER), served.addresses.http],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    refused = "I'm sorry, I can't respond to that."
    assert (found["benign"], found["offending"]) == ("hello there", refused)
    assert (found["answer"], found["offending answer"]) == ("all is fine", refused)
    assert "".join(found["stream"]).split() == ["one", "two", "three"]
    assert "bomb" not in "".join(found["offending stream"])
    assert (found["closed"], found["open"]) == (refused, "hello there")
