"""Reading of the files that dictionaries are stored in: JSON, safetensors, npz archives and pickled tensors.

Large tensors are not read but located in their file, so that single rows can be read later (`FileTensor`). Every way
in which such a file can be broken (missing, cut short, a Git LFS pointer, code instead of numbers) raises
DictionaryError.
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
"""Endings of pickled files, which can run code when they are unpickled without restrictions."""
WEIGHTS = (".safetensors", ".npz", ".pt", ".pth")
"""Endings of weights files that can be read."""

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
    """The JSON object in a file. Raises DictionaryError where the file holds anything else."""
    _check(path)
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DictionaryError(f"{path} is not JSON ({_first(error)}); download it again") from error
    if not isinstance(value, dict):
        raise DictionaryError(f"{path} holds a {type(value).__name__}; it must be a JSON object")
    return value


def read_weights(path: Path) -> dict[str, Any]:
    """The contents of a weights file by name.

    A tensor that can be read in part is given as a `FileTensor`, any other as a `Tensor`. Pickled files may also hold
    plain values: numbers, strings, and dicts of them. Raises DictionaryError where the file is broken.
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
    """An array of an archive: its position in the file where it is not compressed, else its numbers."""
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
    """The dict of tensors and plain values in a pickled file. Nothing in the file is executed."""
    _check_alignment(path)
    try:
        found = _load(path)
        located = _located(path) if isinstance(found, dict) else {}
    except pickle.UnpicklingError as error:
        raise DictionaryError(
            f"{path} holds more than tensors and plain values. A pickled file can run code when it is opened, so this "
            "one is refused: open it on a machine where that is safe, and save only its `state_dict()`, or save the "
            "dictionary as safetensors in the SAELens layout"
        ) from error
    except Exception as error:
        # Broken bytes are opcodes in an order that no pickler writes, and the unpickler can raise anything on them.
        raise DictionaryError(
            f"{path} is not a whole PyTorch file ({_first(error)}); download it again"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise DictionaryError(
            f"{path} holds a {type(found).__name__}; a dictionary is a dict of tensors by name"
        )
    return dict(found) | located


def _load(path: Path) -> Any:
    """Load with a memory map where the file allows it; files written before PyTorch 1.6 do not."""
    mapped = zipfile.is_zipfile(path)
    return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)


def _check_alignment(path: Path) -> None:
    """Refuse a file that states an unusable alignment: torch divides by it, and zero would end the whole process."""
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


def _located(path: Path) -> dict[str, FileTensor]:
    """The positions of the matrices in a pickled file; empty for files written before PyTorch 1.6.

    Loading into fake tensors reads no numbers, and records for each storage where it begins.
    """
    if not zipfile.is_zipfile(path):
        return {}
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode()
    # The mode caches every call together with its storages for the life of the process, and no call here recurs.
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
    """The first line of an error's message, or its class name where it has no message."""
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
