"""vLLM's own front end with the monitor inside: what leaves was scored, and what a policy says is done."""

import json
import random
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
import torch

from monitor.plugin.refusals import refusal_in
from monitor.records import Clamp, Where
from tests.plugin.drawn import SAMPLED, WORD, in_a_process
from tests.rpc.pairs import SILENT, SPEAKS
from tests.vllm.running import clamped_reference
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


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


def test_a_request_that_its_caller_leaves_ends_and_others_go_on(served, plain):
    from vllm import SamplingParams

    engine, scheduler = served.llm.llm_engine, served.core.scheduler
    asked = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    before = len(served.decisions())
    for name in ("leaves at once", "leaves", "stays"):
        engine.add_request(name, SILENT, asked)
    engine.abort_request(["leaves at once"])
    seen = {}
    while len(seen.get("leaves", ())) < 4:
        seen |= {out.request_id: out.outputs[0].token_ids for out in engine.step()}
    engine.abort_request(["leaves"])
    last = ()
    while engine.has_unfinished_requests():
        for out in engine.step():
            assert out.request_id == "stays"
            last = out
    assert last.finished
    assert list(last.outputs[0].token_ids) == greedy(plain, last.prompt_token_ids, 60)
    assert list(seen["leaves"]) == list(last.outputs[0].token_ids)[: len(seen["leaves"])]
    wait_for(lambda: len(served.decisions()) == before + 3)
    at_once, left, stayed = sorted(
        served.decisions()[before:], key=lambda one: one["coverage"].get("tokens_run", 0)
    )
    assert (at_once["finish"], left["finish"], stayed["finish"]) == ("cancelled", "cancelled", "length")
    assert 4 < left["coverage"]["tokens_run"] < stayed["coverage"]["tokens_run"]
    assert all(one["coverage"]["tokens_run"] == one["coverage"]["tokens_scored"] for one in (left, stayed))
    assert not scheduler.requests
    assert not scheduler._held
    assert scheduler.get_kv_cache_usage() == 0


def test_what_the_prefix_cache_evicts_is_run_and_scored_again(served, monkeypatch):
    """Shared beginnings in a cache that holds few of them: tokens and verdicts are those without a cache."""
    chance = random.Random(3)
    words = SPEAKS.split() + SILENT.split()
    beginnings = [" ".join(chance.choices(words, k=60)) for _ in range(4)]
    prompts = [f"{chance.choice(beginnings)} {n}" for n in range(20)]
    pool = served.core.scheduler.kv_cache_manager.block_pool
    evict, evicted = pool._maybe_evict_cached_block, []
    monkeypatch.setattr(
        pool, "_maybe_evict_cached_block", lambda block: evicted.append(evict(block)) or evicted[-1]
    )

    def found(**asked):
        answers = [served.last_of(prompt, max_tokens=3, ignore_eos=True, **asked) for prompt in prompts]
        return [
            (
                list(answer.outputs[0].token_ids),
                answer.outputs[0].finish_reason,
                last["action"],
                [
                    (d["policy"], d["rule"], [e["position"] for e in d["evidence"]])
                    for d in last.get("detections", ())
                ],
                last["coverage"],
            )
            for answer, last in answers
        ], sum(answer.num_cached_tokens for answer, _ in answers)

    held = pool.get_new_blocks(pool.get_num_free_blocks() - 12)
    try:
        cached, hits = found()
    finally:
        pool.free_blocks(held)
    assert any(evicted), "nothing was evicted, so nothing was tested"
    assert hits > 64, "nothing came from the cache, so nothing was tested"
    without, hits = found(skip_reading_prefix_cache=True)
    assert hits == 0
    assert cached == without


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


def test_a_text_that_repeats_itself_ends_before_the_token_that_was_not_run(served):
    from vllm.sampling_params import RepetitionDetectionParams

    again = RepetitionDetectionParams(max_pattern_size=1, min_count=4)
    out = served.ask(SILENT, logit_bias={WORD: 100.0}, repetition_detection=again).outputs[0]
    assert (list(out.token_ids), out.finish_reason, out.stop_reason) == (
        [WORD] * 3,
        "repetition",
        "repetition_detected",
    )


def test_structured_output_keeps_its_form(served):
    from vllm.sampling_params import StructuredOutputsParams

    answer = served.ask(SILENT, structured_outputs=StructuredOutputsParams(choice=["yes", "no"]))
    assert answer.outputs[0].text in ("yes", "no")


def test_what_cannot_be_monitored_is_refused_with_the_reason(served):
    from vllm.exceptions import VLLMValidationError

    for asked, said in (
        ({"logprobs": 2}, "logprobs"),
        ({"prompt_logprobs": 2}, "prompt_logprobs"),
        ({"logprob_token_ids": [300]}, "logprobs"),
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


@pytest.mark.parametrize(
    ("dtype", "eager"), [("bfloat16", True), ("float32", False)], ids=["bfloat16", "compiled"]
)
def test_it_draws_what_bare_vllm_draws_however_it_is_sampled(vllm, served, plain, tmp_path, dtype, eager):
    bare, watched = (in_a_process(who, tmp_path, dtype, eager=eager) for who in ("bare", "watched"))
    assert watched["ids"] == bare["ids"]
    assert watched["run"] == watched["scored"]
    assert min(watched["run"]) >= len(served.llm.get_tokenizer()(SILENT)["input_ids"])
    if dtype == "bfloat16":
        return
    assert watched["sampled"] == bare["sampled"]
    for name, asked in SAMPLED.items():
        ordinary = bare["sampled"]["greedy" if asked["temperature"] == 0 else "seed"]
        assert bare["sampled"][name] != ordinary or name in ("seed", "greedy"), f"{name} changed nothing"
    assert watched["free"] == greedy(plain, watched["prompt"], 12)
    assert watched["clamped"] == clamped(served, watched["prompt"], watched["clamped"]) != watched["free"]


def clamped(served, prompt, new):
    """What a plain model draws where the feature of policy `alerting` is clamped."""
    parts, feature = served.scene.parts, served.scene.alerting
    unit, clamp = float(parts.dictionary.statistics.maximum[feature]), Clamp(feature, -3.0, Where.EVERYWHERE)
    logits = clamped_reference(
        parts.loaded, parts.dictionary.autoencoder, [*prompt, *new], clamp, layer=parts.layer, unit=unit
    )
    return logits[len(prompt) - 1 : -1].argmax(-1).tolist()
