"""Load a causal language model, or the text part of a multimodal one, with its tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monitor.errors import BadRequest, ModelError, Violation
from monitor.model.load.contribution import factor_of
from monitor.model.load.decoder import context_of, decoder_layers, subtracts_mean, text_config
from monitor.model.load.devices import SPREAD, device_of, need_accelerate, parts_of
from monitor.model.load.fair_lock import FairLock
from monitor.model.load.gguf import gguf_file, unpacked
from monitor.model.load.hook_points import ATTN_OUT, MLP_OUT, Place, Site, site_of
from monitor.model.load.host import bound_threads
from monitor.model.load.rope import LengthRope
from monitor.model.load.tokenizer import TextTokenizer
from monitor.model.load.weights import load_weights, refuse_adapter

__all__ = ["LoadedModel", "decoder_layers", "digest_folder", "load_model"]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_KINDS = (
    *("json", "safetensors", "jinja", "py"),
    *("txt", "model", "tiktoken", "vocab", "bpe", "codes", "spm", "tokenizer"),  # vocabularies
)
"""Endings of the files that transformers reads from a model's folder."""
_TEMPLATES = "additional_chat_templates"
_MISTRAL, _PLAIN = "tekken.json", ("tokenizer.json", "tokenizer.model")
_TELLS_ONLY = re.compile(
    r"\.|(readme|licen[cs]e|notice|use_policy|requirements|trainer_state|training_args|(all|train|eval)_results)\b",
    re.IGNORECASE,
)
"""Files that tell about a model or its training, by how their names begin. No reader of models opens them."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer, and the facts about it that the tap and the engine need."""

    model: Any
    """A `transformers.PreTrainedModel`; untyped upstream."""
    tokenizer: Any
    layers: nn.ModuleList
    """The decoder layers, in order."""
    d_model: int
    """Width of the residual stream."""
    context: int
    """Maximum number of tokens of one sequence."""
    name: str
    """Path or name on the hub, as given."""
    digest: str
    """`sha256:` over every file that decides what is computed; see `digest_folder`."""
    device: torch.device
    """The device that takes token ids and returns logits; the only one, unless the model is spread over several."""
    dtype: torch.dtype
    passes: FairLock = field(default_factory=FairLock, compare=False, repr=False)
    """Held during every forward pass, by all threads. During continuous batching transformers sets `is_causal = False`
    on the shared configuration; a plain pass at the same time would attend in both directions."""
    _factors: dict[Place, float] = field(default_factory=dict, compare=False, repr=False)
    """What was measured of its hook points of MLP and attention."""

    def site(self, place: Place) -> Site:
        """A hook point in this model. ModelError where it has none there, or none that can be tapped.

        The first time for each MLP or attention takes two passes, which measure the factor of its output.
        """
        site = site_of(self.layers, place)
        if place.point not in (MLP_OUT, ATTN_OUT):
            return site
        if place not in self._factors:
            self._factors[place] = factor_of(self, place)
        return replace(site, factor=self._factors[place])

    @property
    def subtracts_mean(self) -> bool:
        """True where the norms at its layers subtract the mean of a token, as a layer norm does and an RMS norm not."""
        return subtracts_mean(self.layers[0], self.d_model)

    @property
    def rope(self) -> LengthRope:
        """Its rotary embeddings that depend on the length of a sequence."""
        return LengthRope.of(self.model)

    @contextmanager
    def reading(self, lengths: Sequence[int]) -> Iterator[None]:
        """Around a plain forward pass: the turn for it, and how long the sequence of each row is, padding apart."""
        with self.passes, self.rope.lengths(lengths):
            yield

    @cached_property
    def text(self) -> TextTokenizer:
        """What turns text into token ids, for all who do."""
        return TextTokenizer(self.tokenizer, self.rows)

    def check_ids(self, ids: Sequence[int]) -> None:
        """BadRequest where there are no token ids, or where the model has no embedding for one of them."""
        if not ids:
            raise BadRequest(Violation("input", "has no tokens; give a text that is not empty"))
        if not 0 <= min(ids) <= max(ids) < self.rows:
            raise BadRequest(
                Violation(
                    "input",
                    f"has a token (id {max(ids) if min(ids) >= 0 else min(ids)}) beyond the {self.rows} that the model "
                    "has embeddings for; use the tokenizer that the model came with",
                )
            )

    @cached_property
    def rows(self) -> int:
        """Rows of the embedding: token ids below this can be run."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def devices(self) -> str:
        """Names of all devices that hold weights, separated by commas, for messages."""
        return ", ".join(parts_of(self.model)) or str(self.device)

    def device_of(self, module: nn.Module) -> torch.device:
        """The device on which a module of the model computes."""
        return device_of(module) or self.device

    @property
    def middle(self) -> int:
        """Index of the middle layer, which is tapped where neither dictionary nor settings name a layer."""
        return len(self.layers) // 2


def load_model(
    name_or_path: str | Path, *, device: str = "auto", dtype: str = "auto", cache: Path | None = None
) -> LoadedModel:
    """Load model and tokenizer from a folder, from the hub or from a GGUF file; other weights must be safetensors.

    `device` is `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:N` or `spread` (evenly over the GPUs; what does
    not fit goes to the CPU, then to the disk). `dtype` is `auto` (float32 on the CPU, the checkpoint's own elsewhere)
    or the name of a torch dtype. `cache` is where a GGUF file is unpacked (`monitor.model.load.gguf`). Raises
    ModelError.
    """
    spread = device == SPREAD
    if spread:
        need_accelerate()
    bound_threads()
    chosen = _device("auto" if spread else device)
    packed = gguf_file(name_or_path)
    folder = _folder(name_or_path) if packed is None else unpacked(packed, _gguf_dtype(dtype, chosen), cache)
    tokenizer = _load_tokenizer(folder, str(name_or_path))
    model = load_weights(folder, str(name_or_path), _dtype(dtype, chosen), None if spread else chosen)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        layers=decoder_layers(model),
        d_model=int(text_config(model).hidden_size),
        context=context_of(model, tokenizer),
        name=str(name_or_path),
        digest=digest_folder(folder) if packed is None else packed.digest,
        device=_embedding_device(model) if spread else chosen,
        dtype=model.dtype,
    )


def weights_folder(name_or_path: str | Path, dtype: torch.dtype, cache: Path | None = None) -> Path:
    """Folder with the safetensors of a model, which `load_model` has loaded: unpacked where it is a GGUF file."""
    packed = gguf_file(name_or_path)
    return _folder(name_or_path) if packed is None else unpacked(packed, dtype, cache)


def digest_folder(folder: Path) -> str:
    """`sha256:` over the names and contents of all files that decide what the model computes.

    These are weights, configurations, tokenizer and vocabularies, chat templates, the settings of generation, adapters
    and code. Files that only tell about the model, such as its README, are left out.
    """
    total = hashlib.sha256()
    for path in _deciding(folder):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return f"sha256:{total.hexdigest()}"


def _deciding(folder: Path) -> list[Path]:
    """The files of a folder that decide what its model computes, in the order of their names."""
    found = (path for kind in _KINDS for path in folder.glob(f"*.{kind}"))
    own = (path for path in found if path.is_file() and not _TELLS_ONLY.match(path.name))
    return sorted({*own, *folder.glob(f"{_TEMPLATES}/*.jinja"), *_shards(folder)})


def _shards(folder: Path) -> Iterator[Path]:
    """The files of weights that an index names, also those in folders below. ModelError for one that lies outside."""
    for index in folder.glob("*.safetensors.index.json"):
        names: set[str] = set()
        with suppress(
            ValueError, KeyError, AttributeError, TypeError
        ):  # weights may be in one file without an index
            names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        for name in names:
            if not (folder / name).absolute().is_relative_to(folder.absolute()) or ".." in Path(name).parts:
                raise ModelError(f"{index} names weights outside of its folder ({name}); move them into it")
            if (folder / name).is_file():
                yield folder / name


def _embedding_device(model: Any) -> torch.device:
    """The device on which the embedding of a spread model computes."""
    embedding: nn.Module = model.get_input_embeddings()
    return device_of(embedding) or next(embedding.parameters()).device


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"device {name!r} is unknown; write auto, cpu, cuda, cuda:N or {SPREAD}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {name!r} was asked for, but torch finds no CUDA device; write cpu or auto")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype | str:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if name not in _DTYPES:
        raise ModelError(f"dtype {name!r} is unknown; write auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _gguf_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number type in which a GGUF file is unpacked. It has none of its own that torch computes in."""
    found = _dtype(name, device)
    return found if isinstance(found, torch.dtype) else torch.bfloat16


def _folder(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.is_dir():
        refuse_adapter(path)
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} holds no config.json; give a folder written by save_pretrained")
        return path
    if path.exists() or path.is_absolute() or str(name_or_path).startswith("."):
        raise ModelError(
            f"no model folder at {path}; give a folder with config.json, a GGUF file, or a hub name like org/name"
        )
    return _hub_snapshot(str(name_or_path))


def _hub_snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(snapshot_download(name, allow_patterns=[f"*.{kind}" for kind in _KINDS]))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"no model folder at {name}, and the hub does not give it ({type(error).__name__}); check the name "
            "or download it first and give the folder"
        ) from None
    refuse_adapter(folder)
    return folder


def _load_tokenizer(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    if (folder / _MISTRAL).is_file() and not any((folder / kind).is_file() for kind in _PLAIN):
        raise ModelError(
            f"{name} has its tokenizer in {_MISTRAL} alone, which needs mistral-common and does not keep text apart "
            "from control tokens; use a copy of the model with a tokenizer.json"
        )
    try:
        # Otherwise mistral-common would be asked first wherever it is installed, as it is beside vLLM.
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, mistral_format=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"the tokenizer of {name} cannot be loaded: {error}") from None
