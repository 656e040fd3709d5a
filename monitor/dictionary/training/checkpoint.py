"""The checkpoint of a training run: weights, Adam's moments, dead-feature counts and the step, in one file.

Activations are not part of it, since they can be computed again from the text.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from monitor.dictionary.training.trainer import DictionaryTrainer
from monitor.errors import ConfigurationError

FILE = "checkpoint.safetensors"


def save(folder: Path, trainer: DictionaryTrainer) -> None:
    """Write the trainer's state to `folder`. It replaces an earlier checkpoint in one atomic step."""
    tensors = {f"network.{name}": value for name, value in trainer.network.state_dict().items()}
    for name, parameter in trainer.network.named_parameters():
        for part, value in trainer.optimiser.state[parameter].items():
            tensors[f"adam.{name}.{part}"] = value
    tensors["idle"] = trainer.idle.tokens
    record = {
        "settings": dataclasses.asdict(trainer.settings),
        "step": trainer.step_index,
        "scale": trainer.scale,
        "last_threshold": trainer.network.last_threshold,
    }
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{FILE}.part"
    ready = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(ready, part, metadata={"record": json.dumps(record)})
    os.replace(part, folder / FILE)


def load(folder: Path, trainer: DictionaryTrainer) -> bool:
    """Restore the state in `folder` into a trainer with the same settings. False where there is no checkpoint.

    Raises ConfigurationError where the checkpoint is of other settings, or the file is broken.
    """
    path = folder / FILE
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["record"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ConfigurationError(
            f"{path} is broken ({error}); remove it to train from the beginning"
        ) from error
    _same_settings(record["settings"], json.loads(json.dumps(dataclasses.asdict(trainer.settings))), path)
    _restore(trainer, tensors)
    trainer.step_index = int(record["step"])
    trainer.scale = float(record["scale"])
    trainer.network.last_threshold = float(record["last_threshold"])
    return True


def _same_settings(stored: dict[str, object], wanted: dict[str, object], path: Path) -> None:
    different = [name for name in wanted if stored.get(name) != wanted[name]]
    if different:
        listed = ", ".join(f"{name} {stored.get(name)!r}, now {wanted[name]!r}" for name in different)
        raise ConfigurationError(
            f"{path} is of a run with other settings ({listed}); give the same ones, another --out, or --restart"
        )


def _restore(trainer: DictionaryTrainer, tensors: dict[str, Tensor]) -> None:
    prefix = "network."
    network = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    trainer.network.load_state_dict(network)
    for name, parameter in trainer.network.named_parameters():
        trainer.optimiser.state[parameter] = {
            part: _on_device(tensors[f"adam.{name}.{part}"], parameter, part)
            for part in ("step", "exp_avg", "exp_avg_sq")
        }
    trainer.idle.tokens = tensors["idle"].to(trainer.idle.tokens.device)


def _on_device(value: Tensor, parameter: Tensor, part: str) -> Tensor:
    """The value as Adam expects it: on the parameter's device and of its type, but the step count in float32."""
    dtype = torch.float32 if part == "step" else parameter.dtype
    return value.to(device=parameter.device, dtype=dtype)
