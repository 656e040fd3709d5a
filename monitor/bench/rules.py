"""Cost of rules compared with a decode step: `python -m monitor.bench.rules`.

Policies on random features are evaluated for one new token of every request, as the engine does after each forward
pass: in one call for all requests. That is CPU time of the thread that does it. For comparison, a decode step of a
Llama with random weights is timed on the same machine, one token per request with a KV cache; nothing else should run
there meanwhile.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from monitor.policy.policy import Condition, Policy, Rule, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.expression import AllOf, NotOf
from monitor.policy.schema.policy import Ema, Max, Mean, TopKMean
from monitor.records import Action, Blocks, Mode, Phase, Severity, TokenBlock

app = typer.Typer(add_completion=False)

PER_RULE = 10
"""Number of features that a rule reads."""
POOLINGS = (Max(), Mean(), TopKMean(), Ema())
RULES_PER_POLICY = 10


@app.command()
def main(
    rules: Annotated[
        int, typer.Option(help="Number of rules. One in twenty combines two conditions.")
    ] = 1000,
    features: Annotated[int, typer.Option(help="Number of watched features.")] = 10_000,
    requests: Annotated[
        int, typer.Option(help="Number of concurrent requests. Each gets one new token per step.")
    ] = 256,
    active: Annotated[int, typer.Option(help="Number of watched features that are active at a token.")] = 64,
    steps: Annotated[int, typer.Option(help="Number of steps to measure.")] = 50,
    context: Annotated[int, typer.Option(help="Number of tokens in each request's KV cache.")] = 64,
    threads: Annotated[int, typer.Option(help="Number of torch threads; 0 keeps torch's default.")] = 0,
    model_steps: Annotated[
        int, typer.Option(help="Number of decode steps of the model to measure; 0 measures none.")
    ] = 5,
    out: Annotated[Path | None, typer.Option(help="File to write all measurements to, as JSON.")] = None,
) -> None:
    """Measure milliseconds per step: rules for all requests together, rules request by request, a decode step."""
    if threads:
        torch.set_num_threads(threads)
    policies = random_policies(rules, features)
    seconds = {
        "rules, together": _rules(policies, requests, active, steps, together=True),
        "rules, one by one": _rules(policies, requests, active, max(3, steps // 10), together=False),
    }
    if model_steps:
        seconds["decode step, 1.2 B parameters, bfloat16"] = _decode(requests, context, model_steps)
    _show(seconds, f"{rules} rules over {features} features, {requests} requests, {active} active per token")
    if out is not None:
        out.write_text(json.dumps({"threads": torch.get_num_threads(), "seconds": seconds}, indent=1))


def random_policies(rules: int, features: int, seed: int = 0) -> PolicySet:
    """Rules that read ten random features each, with all kinds of pooling; every twentieth has two conditions."""
    chance = np.random.default_rng(seed)
    order = [int(f) for f in np.resize(chance.permutation(features), rules * PER_RULE)]
    policies = []
    for first in range(0, rules, RULES_PER_POLICY):
        numbers = range(first, min(first + RULES_PER_POLICY, rules))
        picked = {n: order[n * PER_RULE : (n + 1) * PER_RULE] for n in numbers}
        policies.append(_policy(first, picked, chance))
    rest = sorted(set(range(features)) - set(order))
    if rest:
        policies.append(_policy(rules, {rules: rest}, chance))
    return PolicySet(tuple(policies), "")


def _policy(number: int, picked: dict[int, list[int]], chance: np.random.Generator) -> Policy:
    conditions: list[Condition] = []
    made = []
    for n, indices in picked.items():
        read = tuple(WeightedFeature(i, float(chance.uniform(-0.3, 1.0))) for i in indices)
        pooling, threshold = POOLINGS[n % len(POOLINGS)], 50.0
        when = None
        if n % 20 == 19:
            halves = (read[: len(read) // 2], read[len(read) // 2 :])
            names = [f"c{n}a", f"c{n}b"]
            conditions += [
                Condition(name, features=half, pooling=pooling, threshold=1.0)
                for name, half in zip(names, halves, strict=True)
            ]
            when = AllOf(all=[names[0], NotOf.model_validate({"not": names[1]})])
        made.append(_rule(f"r{n}", read, pooling, threshold, when))
    return Policy(
        name=f"p{number}",
        title="",
        category="bench",
        severity=Severity.LOW,
        description="",
        maturity="experimental",
        rules=tuple(made),
        conditions=tuple(conditions),
    )


def _rule(name: str, read: tuple[WeightedFeature, ...], pooling: Any, threshold: float, when: Any) -> Rule:
    phases = (Phase.PROMPT, Phase.RESPONSE)
    return Rule(
        name, phases, read, pooling, 1, threshold, Severity.LOW, Action.ALERT, Mode.ENFORCE, when=when
    )


def _rules(policies: PolicySet, requests: int, active: int, steps: int, *, together: bool) -> list[float]:
    """Seconds of each step, after a few steps of warm-up."""
    chance = np.random.default_rng(1)
    observers = [policies.start(str) for _ in range(requests)]
    warm, seconds = 3, []
    for step in range(steps + warm):
        readings = _readings(chance, requests, len(policies.watch), active)
        work = [
            (observer.slot, TokenBlock(Phase.RESPONSE, step, (5,), readings[row : row + 1]))
            for row, observer in enumerate(observers)
        ]
        batches = [Blocks.of(work)] if together else [Blocks.of([one]) for one in work]
        began = time.thread_time()
        for blocks in batches:
            policies.rules.observe_batch(blocks)
        if step >= warm:
            seconds.append(time.thread_time() - began)
    return seconds


def _readings(chance: np.random.Generator, rows: int, width: int, active: int) -> np.ndarray[Any, Any]:
    """Random readings `[rows, width]`, mostly zero as real ones are."""
    out = np.zeros((rows, width), np.float32)
    for row in out:
        row[chance.choice(width, min(active, width), replace=False)] = chance.exponential(
            0.4, min(active, width)
        )
    return out


def _decode(requests: int, context: int, steps: int) -> list[float]:
    """Seconds of each decode step of a Llama with 1.2 billion random parameters, after one step of warm-up."""
    model, device = _llama()
    step = _stepper(model, device, requests, context)
    step()
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds


def _llama() -> tuple[Any, str]:
    """A model of the shape of Llama 3.2 1B, with random weights in bfloat16, and its device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    return model, device


def _stepper(model: Any, device: str, requests: int, context: int) -> Callable[[], None]:
    """A function that runs one decode step for every request, each time with the same cache."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    for layer in range(model.config.num_hidden_layers):
        shape = (requests, model.config.num_key_value_heads, context, model.config.head_dim)
        states = torch.randn(shape, dtype=torch.bfloat16, device=device)
        cache.update(states, states.clone(), layer)
    ids = torch.randint(0, model.config.vocab_size, (requests, 1), device=device)

    def step() -> None:
        with torch.no_grad():
            model(input_ids=ids, past_key_values=cache, use_cache=True)

    return step


def _show(seconds: dict[str, list[float]], title: str) -> None:
    model = next((statistics.median(times) for name, times in seconds.items() if "decode" in name), None)
    table = Table("what", "ms per step: mean", "25 %", "99 %", "mean, of a decode step", title=title)
    for name, times in seconds.items():
        mean, (low, high) = float(np.mean(times)), np.percentile(times, [25, 99])
        numbers = [f"{value * 1000:.1f}" for value in (mean, low, high)]
        table.add_row(name, *numbers, "" if model is None else f"{mean / model:.2%}")
    Console(width=110).print(table)


if __name__ == "__main__":
    app()
