"""`sae-monitor guard` on a tiny real pair, in front of a server that answers as the test says."""

import json
import os
import re
import subprocess
import sys

import openai
import pytest

from tests.children import ending
from tests.http.guard.upstream import upstream
from tests.waiting import wait_for

FREE = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]


def test_an_upstream_server_must_be_named(run):
    found = run("guard")
    assert found.exit_code == 2
    assert "--upstream http://127.0.0.1:8000" in found.stderr


def test_a_wrong_url_is_refused(run):
    found = run("guard", "--upstream", "127.0.0.1")
    assert found.exit_code == 2
    assert "--upstream" in found.stderr


def test_the_help_says_what_it_does(run):
    found = run("guard", "--help")
    assert found.exit_code == 0
    assert "--guard-mode" in found.stdout


def test_a_check_needs_something_to_check(run):
    found = run("guard", "check")
    assert found.exit_code == 2
    assert "--door" in found.stderr
    found = run("guard", "--upstream", "http://127.0.0.1:1", "check")
    assert found.exit_code == 2
    assert "write it behind" in found.stderr


def test_a_check_of_a_door_has_an_exit_code_and_json(run):
    with upstream() as behind:
        found = run("guard", "check", "--door", behind.url, "--json")
    assert found.exit_code == 1
    said = json.loads(found.stdout)
    assert not said["passed"]
    assert [one["name"] for one in said["checks"]][:2] == ["it answers", "what is benign passes"]


def test_a_door_must_be_a_url(run):
    found = run("guard", "check", "--door", "127.0.0.1:8080")
    assert found.exit_code == 2
    assert "http://127.0.0.1:8080" in found.stderr


def test_a_door_has_an_upstream_server_already(run, monkeypatch):
    found = run("guard", "check", "--door", "http://127.0.0.1:1", "--upstream", "http://127.0.0.1:8000")
    assert found.exit_code == 2
    assert "give one of them" in found.stderr
    monkeypatch.setenv("SAE_MONITOR_UPSTREAM", "http://127.0.0.1:8000")  # of the guard that runs, perhaps
    assert run("guard", "check", "--door", "http://127.0.0.1:1").exit_code == 1


@pytest.mark.slow
def test_it_stands_in_front_of_a_server(pair):
    command = [sys.executable, "-m", "monitor", "guard", *FREE, "--log-format", "json", *pair.flags]
    with upstream() as behind:
        behind.streams(["Hello", "! ", "there"])
        child = subprocess.Popen(
            [*command, "--upstream", behind.url],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        with ending(child):
            lines: list[str] = []
            address = None
            while address is None:
                line = child.stderr.readline()
                assert line, "".join(lines)
                lines.append(line)
                address = re.search(r'"http": "(http://[^"]+)"', line)
            with openai.OpenAI(base_url=f"{address[1]}/v1", api_key="none", max_retries=0) as client:
                asked = {"model": "up", "messages": [{"role": "user", "content": "calm"}]}
                chunks = list(client.chat.completions.create(**asked, stream=True))
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert text == "Hello! there"
            assert chunks[-1].sae_monitor["matched"]
            child.terminate()
            wait_for(lambda: child.poll() is not None)
            assert child.returncode == 0
