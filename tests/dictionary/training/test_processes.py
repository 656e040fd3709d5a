"""Several processes give the same weights as one, and a finished run exits with 0."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.training.settings import Objective
from tests.dictionary.training.tiny_model import options, write_model, write_text

ROOT = Path(__file__).parents[3]
TRAIN = """
import json, pathlib, sys, torch
from datetime import timedelta
from safetensors.torch import save_file
from monitor.dictionary.training import processes
from monitor.dictionary.training.settings import Objective
from monitor.dictionary.training.trainer import DictionaryTrainer
from tests.dictionary.training.planted_features import WIDTH, World, settings
rank, count, store, out, kind = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
torch.set_num_threads(1)
if count > 1:
    processes.join("gloo", init_method="file://" + store, rank=rank, world_size=count, timeout=timedelta(seconds=100))
world, chosen = World(), settings(Objective(kind), steps=60, precision="float64", dead_after=10**9)
trainer = DictionaryTrainer(chosen, WIDTH, dtype=torch.float64)
share = lambda step: world.batch(step).double()[rank::count]
trainer.initialise(share(0))
while trainer.step_index < 30:
    metrics = trainer.step(share(trainer.step_index))
if rank == 0:
    numbers = torch.tensor([metrics.loss, metrics.l0], dtype=torch.float64)
    save_file({**{k: v.contiguous() for k, v in trainer.network.state_dict().items()}, "numbers": numbers}, out)
processes.leave(together=True)
print(json.dumps([(task / "comm").read_text().strip() for task in pathlib.Path("/proc/self/task").iterdir()]))
"""


@contextmanager
def started(*commands: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Run these commands at the same time; all have ended when the block ends."""
    running: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            pipe = subprocess.PIPE
            running.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT))
        yield running
    finally:
        for process in running:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Terminate before killing: torchrun then ends its own children, which a kill would leave running."""
    if process.poll() is None:
        process.terminate()
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("objective", list(Objective))
def test_two_processes_give_what_one_gives(objective: Objective, tmp_path: Path) -> None:
    def command(rank: int, count: int) -> list[str]:
        pattern = [str(tmp_path / "store"), str(tmp_path / f"{count}.safetensors")]
        return [sys.executable, "-c", TRAIN, str(rank), str(count), *pattern, objective]

    for commands in ([command(0, 1)], [command(0, 2), command(1, 2)]):
        with started(*commands) as running:
            for process in running:
                said, errors = process.communicate(timeout=120)
                assert process.returncode == 0, errors[-2000:]
                threads = json.loads(said.splitlines()[-1])
                assert not [name for name in threads if "gloo" in name], "they would outlive the interpreter"
    one, two = load_file(tmp_path / "1.safetensors"), load_file(tmp_path / "2.safetensors")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-8, rtol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_torchrun_trains_and_ends_with_zero(tmp_path: Path) -> None:
    model, out = write_model(tmp_path / "model"), tmp_path / "out"
    chosen = options(model, write_text(tmp_path / "text.jsonl"), out, "--features", "64", "--tokens", "5120")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, "-m", "monitor", "dictionary", "train", *chosen, "--no-plot"]
    with started(command) as (process,):
        said, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors[-4000:]
    assert said.count("saved in") == 1
    assert load_dictionary(out).autoencoder.features == 64
