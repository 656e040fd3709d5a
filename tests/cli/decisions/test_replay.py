"""`sae-monitor decisions replay`: from readings without a model, from text with one, and not at all."""

import json
import re

import pytest

from tests.rpc.conftest import serving


def write(folder, name, feature, action, threshold=0.5, phases=("prompt", "response"), **metadata):
    """A policy that reads one pinned feature."""
    folder.mkdir(exist_ok=True)
    rule = {"name": "word", "threshold": threshold, "action": action, "phases": list(phases)}
    policy = {
        "apiVersion": "monitor/v1",
        "metadata": {
            "name": name,
            "title": name,
            "category": name,
            "severity": "high",
            "description": f"Reads feature {feature}.",
        },
        "features": [{"index": feature}],
        "rules": [rule],
    }
    if action == "suppress":
        policy["suppress"] = {"features": [feature], "target": -2}
    (folder / f"{name}.yaml").write_text(json.dumps(policy))


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Three decisions with readings: nothing, `lie` in the prompt, `bomb` in the prompt; and their request ids."""
    folder = tmp_path_factory.mktemp("log")
    with serving(decision_log=folder, decision_log_records="all", decision_log_readings=True) as served:
        ids = [served.score("calm").request_id, served.generate("a lie", max_new_tokens=3).request_id]
        ids.append(served.score("bomb").request_id)
    return folder, ids


def test_the_same_rules_give_the_same(run, logged, tmp_path):
    write(tmp_path / "p", "deception", 7, "suppress")
    write(tmp_path / "p", "weapons", 9, "block")
    done = run("decisions", "replay", "--policies", tmp_path / "p", "--log", logged[0])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ("3 replayed: 0 differ (0 stronger, 0 weaker, 0 other rules and the same action)\n")
    assert "tokens" not in done.stderr, "the model reads nothing"


def test_what_would_be_different_is_listed(run, logged, tmp_path):
    folder, ids = logged
    write(tmp_path / "p", "deception", 7, "block", phases=["response"])
    write(tmp_path / "p", "weapons", 9, "block", threshold=2.0)
    done = run("decisions", "replay", "--policies", tmp_path / "p", "--log", folder)
    assert done.exit_code == 0, done.stderr
    first, second, summary = done.stdout.splitlines()
    assert first.split()[:5] == ["2", ids[1][:8], "suppress", "→", "block"]
    assert "- deception/word high prompt@2" in first
    assert second.split()[:5] == ["3", ids[2][:8], "block", "→", "allow"]
    assert "- weapons/word high prompt@1" in second
    assert summary == "3 replayed: 2 differ (1 stronger, 1 weaker, 0 other rules and the same action)"
    one = run("decisions", "replay", ids[2][:10], "--policies", tmp_path / "p", "--log", folder, "--json")
    answer = json.loads(one.stdout)
    assert (answer["seq"], answer["was"], answer["now"], answer["differs"]) == (3, "block", "allow", True)


def test_features_that_were_not_recorded_are_named(run, logged, tmp_path):
    write(tmp_path / "p", "deception", 8, "alert")
    done = run("decisions", "replay", "--policies", tmp_path / "p", "--log", logged[0])
    assert done.exit_code == 2
    assert "0 replayed" in done.stdout
    assert "3 cannot be replayed: these policies read what was not recorded: 8" in done.stdout, done.stdout


def test_a_decision_that_is_not_there_is_named(run, logged, tmp_path):
    folder, ids = logged
    write(tmp_path / "p", "deception", 7, "alert")
    asked = ["decisions", "replay", ids[0], "nothing", "--policies", tmp_path / "p", "--log", folder]
    done = run(*asked)
    assert done.exit_code == 2
    assert done.stdout.startswith("1 replayed") or "\n1 replayed" in done.stdout
    assert f"{folder} has no decision nothing" in " ".join(done.stderr.split())


def test_without_readings_and_text_it_says_what_to_set(run, tmp_path):
    with serving(decision_log=tmp_path / "log") as served:
        served.score("lie")
    write(tmp_path / "p", "deception", 7, "alert")
    done = run("decisions", "replay", "--policies", tmp_path / "p", "--log", tmp_path / "log")
    assert done.exit_code == 2
    assert (
        "1 cannot be replayed: neither readings nor text were logged; serve with decision_log_readings"
        in (done.stdout)
    )


def test_bad_policies_are_explained_as_everywhere(run, logged, tmp_path):
    write(tmp_path / "p", "deception", 7, "explode")
    done = run("decisions", "replay", "--policies", tmp_path / "p", "--log", logged[0])
    assert done.exit_code == 2
    assert "deception.yaml:1:" in done.stderr


@pytest.mark.slow
def test_from_text_by_the_model(run, pair, tmp_path, monkeypatch):
    from monitor.rpc.server import in_background
    from monitor.settings import load_settings
    from monitor.v1 import monitor_pb2 as pb
    from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
    from tests.rpc.conftest import DEADLINE, connected, generation

    flags = dict(
        zip((f.removeprefix("--") for f in map(str, pair.flags[::2])), pair.flags[1::2], strict=True)
    )
    log = {"decision_log": tmp_path / "log", "decision_log_text": True, "decision_log_records": "all"}
    settings = load_settings({**flags, **log, "listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"})
    with in_background(settings) as addresses, connected(addresses.grpc) as channel:
        stub = MonitorServiceStub(channel)
        for text in ("Hello! there", "calm."):
            stub.Score(pb.ScoreRequest(input=pb.Input(text=text)), timeout=DEADLINE)
        request = pb.GenerateRequest(generation=generation("Hello! you", max_new_tokens=4))
        stub.Generate(request, timeout=DEADLINE)
    here = ["--log", tmp_path / "log", "--model", flags["model"], "--dictionary", flags["dictionary"]]
    monkeypatch.setattr("monitor.dictionary.training.progress.Pulse.due", lambda _: True)
    same = run("decisions", "replay", "--policies", flags["policies"], *here)
    assert same.exit_code == 0, same.stderr
    assert same.stdout.startswith("3 replayed: 0 differ"), same.stdout
    progress = [line for line in same.stderr.splitlines() if line.startswith("reading again: ")]
    assert re.fullmatch(r"reading again: \d+ tokens at most", progress[0])
    assert re.fullmatch(
        r"reading again: \d+ of \d+ tokens  [\d.,]+ tokens/s  \d+:\d\d:\d\d left", progress[-1]
    )
    assert len(progress) == 4, "one line for each record, since the clock of this test jumps"


def test_a_replay_in_which_nothing_was_replayed_is_no_success(run, logged, tmp_path):
    write(tmp_path / "p", "deception", 7, "suppress")
    done = run(
        "decisions", "replay", "--policies", tmp_path / "p", "--log", logged[0], "--until", "2001-01-01"
    )
    assert done.exit_code == 2
    assert "so nothing was replayed" in done.stderr
