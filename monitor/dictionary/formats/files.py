"""What dictionaries are stored in: JSON objects, safetensors, npz archives, pickled tensors.

Knows how such files break (missing, cut short, a Git LFS pointer, code instead of numbers), and where in them a
tensor lies. Does not know what they mean.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from monitor.dictionary.storage.tensor_file import FileTensor
from monitor.errors import DictionaryError

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
"""Endings of files that can run code when they are opened carelessly."""
WEIGHTS = (".safetensors", ".npz", ".pt", ".pth")
"""Endings of files that are read here."""

_LFS = b"version https://git-lfs"
_LARGEST_ALIGNMENT = 1 << 16
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "BOOL": torch.bool,
}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    _check(path)
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DictionaryError(f"{path} is not JSON ({_first(error)}); download it again") from error
    if not isinstance(value, dict):
        raise DictionaryError(f"{path} holds a {type(value).__name__}; it must be a JSON object")
    return value


def read_weights(path: Path) -> dict[str, Any]:
    """What a weights file holds, by name: tensors, those of a file that can be read in part as `FileTensor`.

    Pickled files may hold other plain values too (numbers, strings, dicts of them).
    """
    _check(path)
    if path.suffix == ".safetensors":
        return dict(_safetensors(path))
    return dict(_archive(path)) if path.suffix == ".npz" else _pickled(path)


def _safetensors(path: Path) -> dict[str, FileTensor]:
    try:
        with safe_open(path, framework="pt"), path.open("rb") as file:  # safe_open checks the whole header
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except SafetensorError as error:
        raise DictionaryError(
            f"{path} is not a whole safetensors file ({error}); it was probably cut short: download it again"
        ) from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in _TYPES:
            raise DictionaryError(
                f"{path}: {name} has the number type {entry['dtype']}, which is not read here"
            )
        offset, shape = 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
        found[name] = FileTensor(path, f"{path}: {name}", offset, _TYPES[entry["dtype"]], shape)
    return found


def _archive(path: Path) -> dict[str, FileTensor | Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        return {member.filename.removesuffix(".npy"): _member(path, member) for member in members}
    except Exception as error:
        # Broken bytes make zipfile, numpy and the tokeniser behind numpy's headers raise whatever they like.
        raise DictionaryError(
            f"{path} is not a whole npz archive of numbers ({_first(error)}); it was probably cut short: "
            "download it again"
        ) from error


def _member(path: Path, member: zipfile.ZipInfo) -> FileTensor | Tensor:
    """An array of an archive: where it lies if it is stored as it is, else its numbers."""
    name = member.filename.removesuffix(".npy")
    if member.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as file:
            file.seek(member.header_offset + 26)
            skip = sum(int.from_bytes(file.read(2), "little") for _ in range(2))
            file.seek(skip, 1)
            major, _ = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            kind = {"<f4": torch.float32, "<f8": torch.float64, "<f2": torch.float16}.get(dtype.str)
            if kind is not None and not fortran:
                return FileTensor(path, f"{path}: {name}", file.tell(), kind, shape)
    with np.load(path, allow_pickle=False) as arrays:
        return torch.from_numpy(np.ascontiguousarray(arrays[name], dtype=np.float32))


def _pickled(path: Path) -> dict[str, Any]:
    """A pickled dict of tensors and plain values; anything that would run code is refused unopened."""
    _check_alignment(path)
    try:
        found = _load(path)
        placed = _placed(path) if isinstance(found, dict) else {}
    except pickle.UnpicklingError as error:
        raise DictionaryError(
            f"{path} holds more than tensors. Pickles can run code when they are opened, so it is refused: open it "
            "where you trust it, and save its `state_dict()` alone, or as safetensors in the SAELens layout"
        ) from error
    except Exception as error:
        # As above: the unpickler meets opcodes in orders that no pickler writes.
        raise DictionaryError(
            f"{path} is not a whole PyTorch file ({_first(error)}); download it again"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise DictionaryError(
            f"{path} holds a {type(found).__name__}; a dictionary is a dict of tensors by name"
        )
    return dict(found) | placed


def _load(path: Path) -> Any:
    """Memory-mapped where the file allows it: files of before PyTorch 1.6 do not."""
    mapped = zipfile.is_zipfile(path)
    return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)


def _check_alignment(path: Path) -> None:
    """Refuse a file whose stated alignment of storages torch would divide by: zero ends the whole process."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            stated = [archive.read(n) for n in archive.namelist() if n.endswith(".storage_alignment")]
    except Exception as error:
        raise DictionaryError(
            f"{path} is not a whole PyTorch file ({_first(error)}); download it again"
        ) from error
    if not all(number.isdigit() and 0 < int(number[:9]) <= _LARGEST_ALIGNMENT for number in stated):
        raise DictionaryError(
            f"{path} is not a whole PyTorch file (it states no usable alignment); download it again"
        )


def _placed(path: Path) -> dict[str, FileTensor]:
    """Where the matrices of a pickled file lie in it; none for files of before PyTorch 1.6.

    A load into fake tensors reads no numbers, and notes for each storage where it begins.
    """
    if not zipfile.is_zipfile(path):
        return {}
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode()
    # The class keeps what it dispatched, with the storages, for as long as the process lives: never hit again here.
    mode.cache_enabled = False
    with mode:
        fakes = torch.load(str(path), map_location="cpu", weights_only=True)
    found = {}
    for name, fake in fakes.items():
        if isinstance(fake, Tensor) and fake.dim() == 2 and fake.is_contiguous():
            start = getattr(fake.untyped_storage(), "_checkpoint_offset", None)
            if start is not None:
                offset = start + fake.storage_offset() * fake.dtype.itemsize
                found[name] = FileTensor(path, f"{path}: {name}", offset, fake.dtype, tuple(fake.shape))
    return found


def _first(error: BaseException) -> str:
    """What an error says, or its name where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


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
