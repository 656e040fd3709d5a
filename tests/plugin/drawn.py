"""What vLLM draws, with the monitor inside or without: `python -m tests.plugin.drawn watched FOLDER DTYPE eager`.

vLLM and the monitor are each there once in a process, so that tests compare processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.plugin.monitored import SIZES, Monitored
from tests.rpc.pairs import SILENT, SPEAKS, demo_scene
from tests.waiting import wait_for

PROMPTS = [
    SILENT,
    *(f"{SILENT} {word}" for word in ("and", "the man", "of the sea", "in a house", "and so")),
]
GREEDY = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True}
LONG = GREEDY | {"max_tokens": 60}
SEEDED = {"temperature": 1.5, "seed": 7, "max_tokens": 12, "ignore_eos": True}
END, WORD = 2, 300
"""Of the demo pair: the token that ends a text, and an ordinary one."""
SAMPLED = {
    "seed": SEEDED,
    "top_k": SEEDED | {"top_k": 5},
    "top_p": SEEDED | {"top_p": 0.5},
    "min_p": SEEDED | {"min_p": 0.2},
    "greedy": LONG,
    "repetition_penalty": LONG | {"repetition_penalty": 1.8},
    "presence_penalty": LONG | {"presence_penalty": 2.0},
    "frequency_penalty": LONG | {"frequency_penalty": 2.0},
    "logit_bias": LONG | {"logit_bias": {WORD: 100.0}},
    "allowed_token_ids": LONG | {"allowed_token_ids": [WORD, WORD + 1, WORD + 2]},
    "bad_words": LONG | {"bad_words": [" the", " and", " a", "."]},
    "end": LONG | {"logit_bias": {END: 100.0}, "ignore_eos": False},
    "min_tokens": LONG | {"logit_bias": {END: 100.0}, "ignore_eos": False, "min_tokens": 5},
}
"""Settings of sampling, by the one that each is about."""


def sampled(llm: object) -> dict[str, object]:
    """What is drawn under each, and why it ended."""
    from vllm import SamplingParams

    found = {}
    for name, asked in SAMPLED.items():
        (answer,) = llm.generate([SILENT], SamplingParams(**asked), use_tqdm=False)
        out = answer.outputs[0]
        found[name] = [list(out.token_ids), out.finish_reason, out.stop_reason, out.text]
    return found


def bare(folder: Path, dtype: str, *, eager: bool) -> dict[str, object]:
    """Without the monitor."""
    from vllm import LLM, SamplingParams

    llm = LLM(str(demo_scene(folder).flags["model"]), dtype=dtype, enforce_eager=eager, **SIZES)
    found = llm.generate(PROMPTS, SamplingParams(**GREEDY), use_tqdm=False)
    return {"ids": [list(one.outputs[0].token_ids) for one in found], "sampled": sampled(llm)}


def watched(folder: Path, dtype: str, *, eager: bool) -> dict[str, object]:
    """Under the monitor; with how many tokens were run and scored, and what a clamp makes of a text."""
    served = Monitored(folder, dtype=dtype, eager=eager, blocks=False)
    found = served.ask(PROMPTS, ignore_eos=True)
    drawn = sampled(served.llm)
    count = len(PROMPTS) + len(SAMPLED)
    wait_for(lambda: len(served.decisions()) == count)
    covered = [one["coverage"] for one in served.decisions()]
    free = served.ask(SPEAKS, ignore_eos=True)
    clamped = served.ask(SPEAKS, ignore_eos=True, extra_args=clamp_of(served))
    return {
        "ids": [list(one.outputs[0].token_ids) for one in found],
        "sampled": drawn,
        "run": [one["tokens_run"] for one in covered],
        "scored": [one["tokens_scored"] for one in covered],
        "prompt": list(clamped.prompt_token_ids),
        "free": list(free.outputs[0].token_ids),
        "clamped": list(clamped.outputs[0].token_ids),
        "feature": served.scene.alerting,
    }


def clamp_of(served: Monitored) -> dict[str, str]:
    """Extra arguments that clamp the feature of the demonstration at every token but the first."""
    clamp = {"feature": served.scene.alerting, "target": -3, "where": "everywhere"}
    return {"sae_monitor_clamps": json.dumps([clamp])}


def in_a_process(who: str, folder: Path, dtype: str, *, eager: bool) -> dict[str, object]:
    """What one of the two finds in a process of its own."""
    # The settings of the monitored engine that other tests share would make bare vLLM refuse to run unwatched.
    settings = {name: value for name, value in os.environ.items() if not name.startswith("SAE_MONITOR_")}
    (folder / who).mkdir()
    command = [sys.executable, "-m", "tests.plugin.drawn", who, str(folder / who), dtype]
    command += ["eager"] * eager
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800, env=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    who, where, dtype, *more = sys.argv[1:]
    drawn = (watched if who == "watched" else bare)(Path(where), dtype, eager=bool(more))
    sys.stdout.write(json.dumps(drawn) + "\n")
