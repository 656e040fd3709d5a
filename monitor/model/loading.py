"""Load a causal language model and find its decoder layers.

Knows Hugging Face models and tokenizers. Does not know dictionaries, taps or batching.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monitor.errors import ModelError

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_DIGESTED = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "chat_template.jinja",
    "*.safetensors",
)


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode on its device, its tokenizer and what the tap needs to know of it."""

    model: Any
    """A `transformers.PreTrainedModel`; untyped upstream."""
    tokenizer: Any
    layers: nn.ModuleList
    """The decoder layers, in order."""
    d_model: int
    """Width of the residual stream."""
    context: int
    """Most tokens of one sequence."""
    name: str
    """Path or hub name as given."""
    digest: str
    """`sha256:` over configuration, tokenizer and weights."""
    device: torch.device
    dtype: torch.dtype
    passes: threading.RLock = field(default_factory=threading.RLock, compare=False, repr=False)
    """Held during every forward pass. A pass of the engine has the library write `is_causal = False` into the shared
    configuration; a plain pass beside it would attend in both directions, and the wrong value could stay for good."""

    @property
    def middle(self) -> int:
        """Index of the middle layer, where the dictionary sits unless told otherwise."""
        return len(self.layers) // 2


def load_model(name_or_path: str | Path, *, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Load model and tokenizer from a folder or a hub name; safetensors only.

    `device` is `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`. `dtype` is `auto` (float32 on the
    CPU, the checkpoint's own elsewhere) or a torch name. Raises ModelError.
    """
    chosen = _device(device)
    folder = _folder(name_or_path)
    tokenizer = _load_tokenizer(folder, str(name_or_path))
    model = _load_weights(folder, str(name_or_path), _dtype(dtype, chosen), chosen)
    text_config = model.config.get_text_config()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        layers=decoder_layers(model),
        d_model=int(text_config.hidden_size),
        context=int(getattr(text_config, "max_position_embeddings", 2048)),
        name=str(name_or_path),
        digest=digest_folder(folder),
        device=chosen,
        dtype=model.dtype,
    )


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The text decoder's layers: the outermost list with as many modules as the text configuration has layers."""
    count = int(model.config.get_text_config().num_hidden_layers)  # type: ignore[union-attr,operator]
    found = [
        (name.count("."), module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and "vision" not in name
    ]
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no list of {count} decoder layers; this kind of model cannot be tapped"
        )
    return min(found, key=lambda item: item[0])[1]


def digest_folder(folder: Path) -> str:
    """`sha256:` over the names and contents of the files that decide what the model computes."""
    total = hashlib.sha256()
    for path in sorted({path for pattern in _DIGESTED for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        total.update(path.name.encode() + b"\0" + content)
    return f"sha256:{total.hexdigest()}"


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"device {name!r} is unknown; write auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {name!r} was asked for, but torch finds no CUDA device; write cpu or auto")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype | str:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if name not in _DTYPES:
        raise ModelError(f"dtype {name!r} is unknown; write auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _folder(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} holds no config.json; give a folder written by save_pretrained")
        return path
    if path.exists() or path.is_absolute() or str(name_or_path).startswith("."):
        raise ModelError(
            f"no model folder at {path}; give a folder with config.json, or a hub name like org/name"
        )
    return _hub_snapshot(str(name_or_path))


def _hub_snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=[*_DIGESTED, "*.json", "*.txt", "*.jinja"]))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"no model folder at {name}, and the hub does not give it ({type(error).__name__}); check the name "
            "or download it first and give the folder"
        ) from None


def _load_tokenizer(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the tokenizer of {name} cannot be loaded: {error}") from None


def _load_weights(folder: Path, name: str, dtype: torch.dtype | str, device: torch.device) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    if not any(folder.glob("*.safetensors")):
        pickled = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
        held = (
            f"it holds pickled weights ({', '.join(sorted(pickled))}), which can run code"
            if pickled
            else "none"
        )
        raise ModelError(f"{name} has no *.safetensors weights ({held}); convert it with save_pretrained")
    try:
        with _no_progress_bar():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model {name} cannot be loaded: {error}") from None
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Without a bar per file: the weights are on disk already, and the bar would stay on the screen."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
