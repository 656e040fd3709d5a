"""vLLM's own front end with the monitor inside: what leaves was scored, and what a policy says is done."""

import json
import os
import subprocess
import sys
import urllib.request
import warnings
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
import torch

from monitor.plugin.refusals import refusal_in
from monitor.records import Failure
from tests.rpc.pairs import SILENT, SPEAKS, demo_scene
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


SIZES = {
    "enforce_eager": True,
    "block_size": 32,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 64,
    "max_model_len": 512,
    "kv_cache_memory_bytes": 64 << 20,
    "async_scheduling": False,
    "enable_prefix_caching": True,
}


class Monitored:
    """vLLM on the demo pair, with the monitor's flags."""

    def __init__(self, folder, dtype="float32"):
        self.folder, self.scene = folder, demo_scene(folder)
        flags = self.scene.flags
        policy = json.loads((flags["policies"] / "alerting.yaml").read_text())
        policy["metadata"] |= {"name": "stops", "title": "stops"}
        policy["features"] = [{"index": self.scene.blocking}]
        policy["rules"] = [policy["rules"][0] | {"phases": ["prompt"], "action": "block"}]
        policy["match"] = {"labels": {"strict": "yes"}}
        (flags["policies"] / "stops.yaml").write_text(json.dumps(policy))
        settings = {
            "dictionary": str(flags["dictionary"]),
            "policies": str(flags["policies"]),
            "device": "cpu",
            "listen": "127.0.0.1:0",
            "metrics_listen": "127.0.0.1:0",
            "decision_log": str(folder / "decisions"),
            "decision_log_records": "all",
            "reload_seconds": 0.2,
            "vllm_plugin": True,
            "vllm_xargs": True,
        }
        (folder / "settings.yaml").write_text(json.dumps(settings))
        os.environ["SAE_MONITOR_SETTINGS"] = str(folder / "settings.yaml")
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from vllm import LLM

            from monitor.plugin.front import register
            from monitor.plugin.host import host_for

            register()
            self.llm = LLM(
                str(flags["model"]),
                dtype=dtype,
                **SIZES,
                worker_cls="monitor.plugin.worker.HostedWorker",
                scheduler_cls="monitor.plugin.scheduler.HostedScheduler",
            )
        self.core = self.llm.llm_engine.engine_core.engine_core
        self.host = host_for(None)
        self.metrics = self.host.addresses.metrics

    def ask(self, prompts, **sampling):
        from vllm import SamplingParams

        given = [prompts] if isinstance(prompts, str) else prompts
        asked = SamplingParams(**({"temperature": 0.0, "max_tokens": 12} | sampling))
        found = self.llm.generate(given, asked, use_tqdm=False)
        return found[0] if isinstance(prompts, str) else found

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"sae_monitor_{name}"))

    def last_of(self, *prompt, **sampling):
        """The answer to a prompt and the decision on it, which vLLM's own server does not wait for."""
        before = len(self.decisions())
        answer = self.ask(*prompt, **sampling)
        wait_for(lambda: len(self.decisions()) > before)
        return answer, self.decisions()[-1]

    def decisions(self):
        files = sorted((self.folder / "decisions").rglob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def served(vllm, tmp_path_factory):
    yield Monitored(tmp_path_factory.mktemp("plugin"))
    os.environ.pop("SAE_MONITOR_SETTINGS")


@pytest.fixture(scope="module")
def plain(served):
    """The same model in transformers."""
    from monitor.model.load.model import load_model

    return load_model(served.scene.flags["model"], device="cpu", dtype="float32")


def greedy(plain, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(plain.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_the_same_tokens_as_without_a_monitor_and_as_many_as_asked_for(served, plain):
    answer = served.ask(SILENT)
    wanted = greedy(plain, answer.prompt_token_ids, 12)
    assert list(answer.outputs[0].token_ids) == wanted
    assert answer.outputs[0].finish_reason == "length"
    assert answer.outputs[0].text == plain.tokenizer.decode(wanted)


def test_every_token_is_in_the_decision_log_as_scored(served):
    answer, last = served.last_of(SPEAKS, max_tokens=7, ignore_eos=True)
    # Policy `blocking` withholds the last token that was run.
    assert (answer.outputs[0].finish_reason, last["action"]) == ("abort", "block")
    ran = len(answer.prompt_token_ids) + len(answer.outputs[0].token_ids) + 1
    assert last["coverage"]["tokens_run"] == last["coverage"]["tokens_scored"] == ran
    assert last["status"] == "checked"
    assert "alerting" in {found["policy"] for found in last["detections"]}


def test_a_policy_ends_a_response_before_anything_of_it_leaves(served):
    asked = {"sae_monitor_labels": '{"strict": "yes"}'}
    answer, last = served.last_of(SPEAKS, extra_args=asked)
    assert answer.outputs[0].finish_reason == "abort"
    assert answer.outputs[0].stop_reason.startswith("policy:")
    assert list(answer.outputs[0].token_ids) == []
    assert last["action"] == "block"
    assert served.ask(SILENT, extra_args=asked).outputs[0].finish_reason == "length"


def test_many_at_once_and_several_answers(served, plain):
    prompts = [f"{SILENT} {n} {SPEAKS if n % 3 else ''}" * (1 + n % 4) for n in range(16)]
    answers = served.ask(prompts, max_tokens=5)
    for answer in answers:
        assert list(answer.outputs[0].token_ids) == greedy(plain, answer.prompt_token_ids, 5)
    several = served.ask(SILENT, n=3, temperature=1.0, seed=5, max_tokens=4)
    assert [len(one.token_ids) for one in several.outputs] == [4, 4, 4]


def test_preempted_requests_end_as_those_that_never_were(served, monkeypatch):
    """One request at a time meets no other; sixteen in fourteen blocks push each other out."""
    scheduler = served.core.scheduler
    pool = scheduler.kv_cache_manager.block_pool
    prompts = [f"{SILENT} {n} {SPEAKS if n % 3 else ''}" * (1 + n % 3) for n in range(16)]
    extra = {"sae_monitor_labels": '{"strict": "no"}'}

    def all_of(answers):
        found = [one.outputs[0] for one in answers]
        return [(list(out.token_ids), out.finish_reason, out.stop_reason) for out in found]

    def decided(count):
        wait_for(lambda: len(served.decisions()) >= count)
        return sorted(verdict(one) for one in served.decisions()[count - 16 :])

    def verdict(one):
        found = [(d["policy"], d.get("rule"), d.get("action")) for d in one.get("detections") or ()]
        assert one["coverage"]["tokens_run"] == one["coverage"]["tokens_scored"] > 0
        return json.dumps([one["action"], one["status"], found])

    before = len(served.decisions())
    alone = [served.ask(prompt, max_tokens=40, ignore_eos=True, extra_args=extra) for prompt in prompts]
    wanted = decided(before + 16)
    evicted = []
    preempt = scheduler._preempt_request
    monkeypatch.setattr(
        scheduler,
        "_preempt_request",
        lambda request, *more, **named: (
            evicted.append(request.request_id),
            preempt(request, *more, **named),
        )[-1],
    )
    held = pool.get_new_blocks(pool.get_num_free_blocks() - 14)
    try:
        together = served.ask(prompts, max_tokens=40, ignore_eos=True, extra_args=extra)
    finally:
        pool.free_blocks(held)
    assert evicted, "nothing was preempted, so nothing was tested"
    assert all_of(together) == all_of(alone)
    assert decided(before + 32) == wanted


def test_stop_strings_and_stop_tokens_end_where_they_do_without_a_monitor(served):
    whole = served.ask(SILENT).outputs[0]
    word = whole.text[3:5]
    stopped = served.ask(SILENT, stop=[word]).outputs[0]
    assert stopped.text == whole.text[: whole.text.index(word)]
    assert stopped.finish_reason == "stop"


def test_a_token_that_ends_a_text_is_no_ordinary_one(served):
    """It would be told to the caller, as the stop reason, and nobody scored it."""
    whole = served.ask(SILENT).outputs[0]
    refused = served.ask(SILENT, stop_token_ids=[whole.token_ids[4]]).outputs[0]
    assert (refused.finish_reason, list(refused.token_ids)) == ("error", [])
    assert refusal_in(refused.stop_reason) == (400, refused.stop_reason.partition(": ")[2])
    assert "write their texts in `stop`" in refused.stop_reason
    special = sorted(served.host.runtime.special_ids)
    same = served.ask(SILENT, stop_token_ids=special).outputs[0]
    assert list(same.token_ids) == list(whole.token_ids)[: len(same.token_ids)]
    assert same.finish_reason in ("stop", "length")


def test_structured_output_keeps_its_form(served):
    from vllm.sampling_params import StructuredOutputsParams

    answer = served.ask(SILENT, structured_outputs=StructuredOutputsParams(choice=["yes", "no"]))
    assert answer.outputs[0].text in ("yes", "no")


def test_what_cannot_be_monitored_is_refused_with_the_reason(served):
    from vllm.exceptions import VLLMValidationError

    for asked, said in (
        ({"logprobs": 2}, "logprobs"),
        ({"prompt_logprobs": 2}, "prompt_logprobs"),
        ({"extra_args": {"sae_monitor_policie": "x"}}, "did you mean `sae_monitor_policies`"),
    ):
        with pytest.raises(VLLMValidationError, match=said):
            served.ask(SILENT, **asked)


def test_a_clamp_in_extra_arguments(served):
    free = served.ask(SPEAKS)
    clamp = json.dumps([{"feature": served.scene.alerting, "target": -3, "where": "everywhere"}])
    clamped = served.ask(SPEAKS, extra_args={"sae_monitor_clamps": clamp})
    assert list(free.outputs[0].token_ids) != list(clamped.outputs[0].token_ids)
    amplified = json.dumps([{"feature": served.scene.alerting, "target": 3}])
    refused = served.ask(SPEAKS, extra_args={"sae_monitor_clamps": amplified}).outputs[0]
    assert (refused.finish_reason, list(refused.token_ids)) == ("error", [])
    assert refusal_in(refused.stop_reason).status == 400
    assert "vllm_xargs.sae_monitor_clamps[0].target: 3 amplifies" in refused.stop_reason
    absent = json.dumps([{"feature": 10**6, "target": -1}])
    refused = served.ask(SPEAKS, extra_args={"sae_monitor_clamps": absent}).outputs[0]
    assert "vllm_xargs.sae_monitor_clamps[0].feature: 1000000 does not exist" in refused.stop_reason


def test_a_policy_that_is_not_in_force_refuses_who_relies_on_it(served):
    answer = served.ask(SILENT, extra_args={"sae_monitor_policies": ["absent"]})
    assert answer.outputs[0].finish_reason == "error"
    assert "vllm_xargs.sae_monitor_policies: absent: not in force" in answer.outputs[0].stop_reason
    answer = served.ask(SILENT, extra_args={"sae_monitor_policies": ["alerting"]})
    assert answer.outputs[0].finish_reason == "length"


def test_a_tap_that_does_not_run_lets_nothing_out(served, monkeypatch):
    monkeypatch.setattr(served.host.runtime.tap, "apply", lambda x, buffers: None)
    answer, last = served.last_of("another beginning", max_tokens=4)
    assert last["failure"] == Failure.TAP_MISSED.value
    assert answer.outputs[0].finish_reason == "error"
    assert refusal_in(answer.outputs[0].stop_reason) == (503, "the request could not be served")
    assert list(answer.outputs[0].token_ids) == []


def test_metrics_have_it_all(served):
    assert served.metric("tokens_scored_total") > 0
    assert served.metric("detections_total") > 0


def test_policies_are_reloaded(served):
    before = served.metric("policies_reloads_total")
    file = served.scene.flags["policies"] / "stops.yaml"
    policy = json.loads(file.read_text())
    policy["match"] = {"labels": {"strict": "always"}}
    file.write_text(json.dumps(policy))
    wait_for(lambda: served.metric("policies_reloads_total") > before, 30)
    answer = served.ask(SPEAKS, extra_args={"sae_monitor_labels": '{"strict": "yes"}'})
    assert answer.outputs[0].finish_reason in ("stop", "length")
    assert len(answer.outputs[0].token_ids) > 0


def test_vllm_ends_where_the_monitor_has_failed_though_nobody_asks(served, monkeypatch):
    from monitor.plugin import scheduler

    batcher = SimpleNamespace(begun=SimpleQueue(), failed="")
    idle = scheduler.HostedScheduler.__new__(scheduler.HostedScheduler)
    idle._held, idle._batcher = {}, batcher
    with monkeypatch.context() as patch:
        patch.setattr(scheduler.GatedScheduler, "has_requests", lambda _: False)
        assert not idle.has_requests()
        batcher.failed = "the check at the start failed"
        assert idle.has_requests()
    with pytest.raises(RuntimeError, match="the check at the start failed"):
        idle.schedule()


def test_in_bfloat16_it_draws_what_bare_vllm_draws(vllm, tmp_path):
    """In processes of their own, because vLLM and the monitor are each there once in a process."""
    # The settings of the monitored engine that other tests share would make bare vLLM refuse to run unwatched.
    settings = {name: value for name, value in os.environ.items() if not name.startswith("SAE_MONITOR_")}
    drawn = {}
    for who in ("watched", "bare"):
        (tmp_path / who).mkdir()
        command = [sys.executable, "-m", "tests.plugin.drawn", who, str(tmp_path / who)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=settings)
        assert done.returncode == 0, done.stderr[-3000:]
        drawn[who] = json.loads(done.stdout.splitlines()[-1])
    assert drawn["watched"]["ids"] == drawn["bare"]["ids"]
    assert drawn["watched"]["run"] == drawn["watched"]["scored"]
    assert min(drawn["watched"]["run"]) > 12
