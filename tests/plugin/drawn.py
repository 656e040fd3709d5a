"""What vLLM draws in bfloat16, with the monitor inside or without: `python -m tests.plugin.drawn watched FOLDER`."""

import json
import sys
from pathlib import Path

from tests.plugin.test_scheduler import SIZES, Monitored
from tests.rpc.pairs import SILENT, demo_scene
from tests.waiting import wait_for

PROMPTS = [
    SILENT,
    *(f"{SILENT} {word}" for word in ("and", "the man", "of the sea", "in a house", "and so")),
]


def bare(folder: Path) -> dict[str, list[list[int]]]:
    """Tokens of vLLM alone."""
    from vllm import LLM, SamplingParams

    llm = LLM(str(demo_scene(folder).flags["model"]), dtype="bfloat16", **SIZES)
    found = llm.generate(
        PROMPTS, SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True), use_tqdm=False
    )
    return {"ids": [list(one.outputs[0].token_ids) for one in found]}


def watched(folder: Path) -> dict[str, object]:
    """Tokens under the monitor, and how many were run and scored."""
    served = Monitored(folder, "bfloat16")
    found = served.ask(PROMPTS, ignore_eos=True)
    wait_for(lambda: len(served.decisions()) == len(PROMPTS))
    covered = [one["coverage"] for one in served.decisions()]
    return {
        "ids": [list(one.outputs[0].token_ids) for one in found],
        "run": [one["tokens_run"] for one in covered],
        "scored": [one["tokens_scored"] for one in covered],
    }


if __name__ == "__main__":
    drawn = (watched if sys.argv[1] == "watched" else bare)(Path(sys.argv[2]))
    sys.stdout.write(json.dumps(drawn) + "\n")
