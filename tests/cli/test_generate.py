"""`sae-monitor generate`, against a server on a real port."""

import json

import pytest

from monitor.v1 import monitor_pb2 as pb

PROMPT = "Tell me why"


def test_streams_the_text_detections_and_the_verdict(run, serve):
    address, _, _ = serve()
    done = run("generate", PROMPT, "--connect", address)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "<s> Tell me why ▌ more"
    assert lines[1] == "● power-seeking / states-it  high  alert  in the response, at token 5"
    assert lines[2] == " power gives more control ."
    assert "CHECKED   10 of 10 tokens scored" in done.stdout
    assert "ended: the model or a stop string ended it" in done.stdout


def test_json_is_the_response(run, serve):
    address, _, _ = serve()
    said = json.loads(run("generate", PROMPT, "--connect", address, "--json").stdout)
    assert said["text"] == " more power gives more control ."
    assert said["finishReason"] == "FINISH_REASON_STOP"
    assert said["verdict"]["coverage"] == {
        "tokensRun": 10,
        "tokensScored": 10,
        "tokensTruncated": 0,
        "tokensJudged": 0,
        "tokensSinks": 0,
    }


def test_every_option_reaches_the_server(run, serve):
    address, _, service = serve()
    options = ["--max-new-tokens", "5", "--temperature", "0.5", "--top-k", "3", "--top-p", "0.9"]
    options += ["--seed", "11", "--stop", "END", "--stop", "STOP"]
    clamps = ["--clamp", "11=-0.5@everywhere", "--clamp", "22=0"]
    assert run("generate", PROMPT, "--chat", "--connect", address, *options, *clamps).exit_code == 0
    (sent,) = service.requests
    sampling = pb.Sampling(
        max_new_tokens=5, temperature=0.5, top_k=3, top_p=0.9, seed=11, stop=["END", "STOP"]
    )
    assert sent.sampling == sampling
    assert list(sent.clamps) == [
        pb.Clamp(feature=11, target=-0.5, where=pb.CLAMP_WHERE_EVERYWHERE),
        pb.Clamp(feature=22, target=0),
    ]
    assert sent.input.conversation.messages[0].role == pb.ROLE_USER


def test_what_is_not_given_is_the_servers_default(run, serve):
    address, _, service = serve()
    run("generate", PROMPT, "--connect", address)
    assert service.requests[0].sampling == pb.Sampling()


@pytest.mark.parametrize("clamp", ["11", "11=nan", "11=inf", "x=1", "-3=1", "11=1@often"])
def test_a_bad_clamp_is_a_usage_error(run, clamp):
    done = run("generate", PROMPT, "--clamp", clamp, "--connect", "127.0.0.1:1")
    assert done.exit_code == 2
    assert "--clamp" in done.stderr


def test_an_unknown_feature_is_refused_by_the_server(run, serve):
    address, _, _ = serve()
    for form in ([], ["--json"]):
        done = run("generate", PROMPT, "--clamp", "64=0", "--connect", address, *form)
        assert done.exit_code == 2
        assert "generation.clamps[0].feature: there are 64 features" in done.stderr


def test_a_policy_that_ends_it_is_said(run, serve):
    address, _, _ = serve(blocks=True)
    done = run("generate", PROMPT, "--connect", address)
    assert done.exit_code == 1
    assert "ended: a policy ended it" in done.stdout
    assert "strongest enforced action: block" in done.stdout


def test_a_stream_without_a_verdict_is_an_error(run, serve):
    address, _, _ = serve(ends_early=True)
    done = run("generate", PROMPT, "--connect", address)
    assert done.exit_code == 2
    assert "the stream ended without a verdict" in done.stderr


def test_unscored_tokens_are_an_error(run, serve):
    address, _, _ = serve(unscored=1)
    assert run("generate", PROMPT, "--connect", address, "--exit-zero").exit_code == 2


def test_a_picture_shows_the_whole_text(run, serve, tmp_path):
    address, _, _ = serve()
    path = tmp_path / "generate.svg"
    run("generate", PROMPT, "--connect", address, "--svg", path)
    assert "Tell" in path.read_text()
