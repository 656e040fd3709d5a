"""Safe reading of what dictionaries are made of: JSON objects, safetensors, digests.

Knows how files break (missing, cut short, a Git LFS pointer, not finite). Does not know what they mean.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from monitor.errors import DictionaryError

_LFS = b"version https://git-lfs"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    _check(path)
    try:
        value = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DictionaryError(f"{path} is not JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise DictionaryError(f"{path} holds a {type(value).__name__}; it must be a JSON object")
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, in float32; every one finite."""
    _check(path)
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise DictionaryError(
            f"{path} is not a whole safetensors file ({error}); it was probably cut short: download it again"
        ) from error
    tensors = {name: tensor.float() for name, tensor in stored.items()}
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise DictionaryError(f"{path}: {', '.join(broken)} holds values that are not finite")
    return tensors


def digest(files: tuple[Path, ...]) -> str:
    """`sha256:` over names, sizes and contents of these files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        total.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{total.hexdigest()}"


def _check(path: Path) -> None:
    if not path.is_file():
        raise DictionaryError(
            f"{path.parent} has no {path.name}, and the dictionary cannot be read without it"
        )
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise DictionaryError(
                f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` there"
            )
