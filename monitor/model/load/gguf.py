"""GGUF files, as llama.cpp serves them: found, and unpacked once into a folder that everything else can load.

The weights are dequantised into safetensors. They stay in a cache folder, under the digest of the file and the number
type. Tokenizer and chat template come from the file too. The cache may be deleted at any time: it is made again.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor

from monitor.errors import ModelError
from monitor.model.load.weights import no_progress_bar

ENDING = ".gguf"
_ON_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[^:]+\.gguf)", re.IGNORECASE)
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_LAYOUT = 2
"""Goes up where the same file would be unpacked into other weights or another tokenizer."""
_SHARD = 1 << 30
"""Bytes of weights in one file. An interrupted unpacking goes on behind the last whole file."""
_SPARE = 1.02
"""Room on the disk that is asked for, as a multiple of the weights."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file on this machine."""

    path: Path
    digest: str
    """`sha256:` over its content: its name does not matter, nor what it is unpacked into."""


def gguf_file(name_or_path: str | Path) -> GgufFile | None:
    """The GGUF file that a model is named by, or None where the name stands for something else.

    It may be a file, a folder that holds one and no config.json, or `ORG/REPO:FILE.gguf` on the hub. Raises ModelError
    where the file is missing, where a folder holds several, and where a file is one part of several.
    """
    path = Path(name_or_path)
    if path.is_file() and path.suffix.lower() == ENDING:
        return _opened(path)
    if path.is_dir() and not (path / "config.json").exists():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() == ENDING)
        if len(found) > 1:
            names = ", ".join(p.name for p in found)
            raise ModelError(f"{path} holds several GGUF files ({names}); give the path of one")
        return _opened(found[0]) if found else None
    match = _ON_HUB.fullmatch(str(name_or_path))
    if match is not None and not path.exists():
        return _opened(_downloaded(match["repository"], match["file"]))
    if path.suffix.lower() == ENDING:
        raise ModelError(f"no file at {path}; give a GGUF file, or ORG/REPO:FILE.gguf for one on the hub")
    return None


def _opened(path: Path) -> GgufFile:
    if _SPLIT.search(path.name):
        raise ModelError(
            f"{path.name} is one part of a model that was split; join the parts first (`llama-gguf-split --merge`)"
        )
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path} is no GGUF file: it does not begin with GGUF; download it again")
            file.seek(0)
            return GgufFile(path, f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _downloaded(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(repository, file))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"the hub does not give {file} of {repository} ({type(error).__name__}); check both names, or download "
            "the file first and give its path"
        ) from None


def unpacked(file: GgufFile, dtype: torch.dtype, cache: Path | None = None) -> Path:
    """The folder with the file's model as `save_pretrained` writes it, its weights as `dtype`; made where missing.

    It is made in `cache`, by default the user's (`monitor.settings.cache_folder`).

    Raises ModelError where transformers cannot read the file, and where the disk has no room for it.
    """
    name = f"{file.digest.removeprefix('sha256:')[:32]}-{str(dtype).removeprefix('torch.')}-{_version()}"
    from monitor.settings import cache_folder  # a notebook needs no settings

    wanted = (cache or cache_folder()) / "gguf"
    if (wanted / name).is_dir():
        _name_class(wanted / name)
        return wanted / name
    place = _writable(wanted)
    folder, part = place / name, place / f"{name}.part"
    with _alone(place / f"{name}.lock"):
        if not folder.is_dir():  # another process may have made it meanwhile
            part.mkdir(exist_ok=True)
            _unpack(file.path, dtype, part)
            part.rename(folder)
    return folder


def _name_class(folder: Path) -> None:
    """Have the configuration in an unpacked folder say which class it is of, where an earlier version left that out.

    Only others ask that, such as `transformers serve`, so that a folder that cannot be written stays as it is.
    """
    path, draft = folder / "config.json", folder / f".config.{os.getpid()}.part"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get("architectures"):
            return
        if (name := _class_name(str(found.get("model_type")))) is None:
            return
        draft.write_text(json.dumps(found | {"architectures": [name]}, indent=2) + "\n", encoding="utf-8")
        os.replace(draft, path)
    except (OSError, ValueError) as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        _log.debug("an unpacked GGUF file stays without its class", folder=folder.name, error=str(error))


def _class_name(model_type: str) -> str | None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    return name if isinstance(name, str) else None


def _version() -> str:
    import transformers

    return f"{_LAYOUT}-{'.'.join(transformers.__version__.split('.')[:2])}"


def _writable(wanted: Path) -> Path:
    """The cache folder; where it cannot be written, one for this process alone, which is removed at its end."""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if os.access(wanted, os.W_OK | os.X_OK):
            return wanted
    except OSError:
        pass
    own = Path(tempfile.mkdtemp(prefix="sae-monitor-gguf-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    _log.warning(
        "the cache for unpacked GGUF files cannot be written; this one is unpacked for this process alone",
        cache=str(wanted),
        do="set SAE_MONITOR_CACHE to a folder that can be written",
    )
    return own


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock of all processes on this machine. The kernel lets go of it where this process ends."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _unpack(path: Path, dtype: torch.dtype, folder: Path) -> None:
    """Write the model in a GGUF file into `folder`."""
    with _apart(path) as file:
        _write(_model(file, dtype), _tokenizer(file), path, folder)


@contextmanager
def _apart(path: Path) -> Iterator[Path]:
    """The file in a folder of its own.

    Transformers reads what lies beside a GGUF file too, a `tokenizer.json` or an adapter, and the digest is of the file
    alone.
    """
    with tempfile.TemporaryDirectory(prefix="sae-monitor-gguf-") as folder:
        file = Path(folder) / path.name
        file.symlink_to(path.resolve())
        yield file


def _write(model: Any, tokenizer: Any, path: Path, folder: Path) -> None:
    """Write into `folder` what was read of the GGUF file at `path`, where the disk has room for it."""
    weights: dict[str, Tensor] = {
        name: tensor for name, tensor in model.state_dict().items() if name not in _tied(model)
    }
    size = sum(tensor.nbytes for tensor in weights.values())
    _check_room(path, folder, size)
    _log.info(
        "unpacking a GGUF file, once", file=path.name, megabytes=round(size / 1e6), to=str(folder.parent)
    )
    _write_weights(weights, folder)
    # Read from GGUF, a configuration does not say which class it is of, and `transformers serve` asks that.
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _model(path: Path, dtype: torch.dtype) -> Any:
    """The dequantised model, with a configuration that no longer speaks of GGUF."""
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        with no_progress_bar(), _plain_iteration():
            model, report = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=dtype,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
    except ImportError as error:
        raise ModelError(
            f"{path.name}: {_line(error)}; GGUF files need `pip install 'sae-monitor[serve]'`"
        ) from None
    except Exception as error:  # noqa: BLE001  (a broken file can break its reader anywhere)
        raise ModelError(
            f"transformers cannot read {path.name} ({_line(error)}): it is incomplete, or its architecture or its "
            "quantisation is not supported; get it again, or use the original model or another GGUF file of it"
        ) from None
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{path.name} lacks weights: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}; they would be "
            "random numbers. Use the original model, or another GGUF file of it"
        )
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        if hasattr(config, "quantization_config"):
            del config.quantization_config
    return model


@contextmanager
def _plain_iteration() -> Iterator[None]:
    """Have transformers read weights without a bar of its own, which no setting switches off."""
    from transformers import modeling_gguf_pytorch_utils as reading

    bar = reading.tqdm
    reading.tqdm = lambda weights, **_: weights
    try:
        yield
    finally:
        reading.tqdm = bar


def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # noqa: BLE001  (as for the model)
        raise ModelError(
            f"the tokenizer in {path.name} cannot be read ({_line(error)}); use the original model"
        ) from None


def _tied(model: Any) -> set[str]:
    """Names of weights that are another's, such as a head tied to the embedding; only one of them is stored."""
    shared: dict[tuple[int, int], str] = {}
    tied: set[str] = set()
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.nbytes)
        if tensor.nbytes and shared.setdefault(place, name) != name:
            tied.add(name)
    return tied


def _check_room(path: Path, folder: Path, size: int) -> None:
    there = sum(file.stat().st_size for file in folder.iterdir())
    free, needed = shutil.disk_usage(folder).free, int(size * _SPARE) - there
    if free < needed:
        raise ModelError(
            f"{path.name} needs {needed / 1e9:.1f} GB to be unpacked, and {folder.parent} has {free / 1e9:.1f} GB; "
            "make room, or set SAE_MONITOR_CACHE to a folder on another disk"
        )


def _write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    """Write the weights as files of at most `_SHARD` bytes. Files that are there already are whole, and stay."""
    from safetensors.torch import save_file

    shards = _shards(weights)
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        places |= dict.fromkeys(names, file.name)
        if file.exists():
            continue
        partial = file.with_suffix(".partial")
        save_file({name: weights[name].contiguous() for name in names}, partial, {"format": "pt"})
        partial.rename(file)
    total = {"total_size": sum(tensor.nbytes for tensor in weights.values())}
    index = {"metadata": total, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _shards(weights: dict[str, Tensor]) -> list[list[str]]:
    """Names of the weights of each file, in order."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in weights.items():
        if shards[-1] and size + tensor.nbytes > _SHARD:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    return shards


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
