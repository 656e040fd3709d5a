"""Load the weights of a transformers model from a folder.

Only safetensors are read, no Python code from the folder is run, and quantised weights stay quantised. A folder whose
model would not compute what its files say is refused: one that lacks weights, that holds an adapter, or whose
quantisation is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
import torch

from monitor.errors import ModelError

_ADAPTER = "adapter_config.json"
_SHOWN = 5
"""Number of weights that a message names."""

_log = structlog.get_logger(__name__)


def load_weights(folder: Path, name: str, dtype: torch.dtype | str, device: torch.device | None) -> Any:
    """The model in evaluation mode, without gradients, on `device`.

    With `device` None its layers are spread over all devices. A multimodal model is loaded whole and used with text
    alone. A quantised model needs the library of its quantisation to be installed. Raises ModelError where the model
    cannot be loaded, or some of its weights are not in the folder.
    """
    from safetensors import SafetensorError

    _refuse_pickles(folder, name)
    config = _configuration(folder, name)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    quantised = _quantised(config, name)
    if device is None:
        options["device_map"] = "auto"
    elif quantised:
        # Quantised weights are laid out for their device while they load.
        options["device_map"] = {"": device}
    try:
        with no_progress_bar():
            model, report = _auto_class(config, name).from_pretrained(
                folder, config=config, output_loading_info=True, **options
            )
    except (ImportError, ValueError) as error:
        if "offload_folder" in str(error):
            raise ModelError(
                f"{name} fits neither the GPUs nor memory, and its weights cannot be read from the disk as they are "
                "stored; give it more memory, a smaller dtype or quantised weights"
            ) from None
        if quantised:
            raise ModelError(
                f"the quantised model {name} cannot be loaded ({_first_line(error)}); quantised weights need "
                "`pip install 'sae-monitor[quantised]'`"
            ) from None
        raise ModelError(f"the model {name} cannot be loaded: {error}") from None
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model {name} cannot be loaded: {error}") from None
    _check_complete(report, folder, name)
    if device is not None and not quantised:
        model = model.to(device)
    return model.eval().requires_grad_(False)


def refuse_adapter(folder: Path) -> None:
    """Raise ModelError where a folder holds a PEFT adapter, which counts or not by what else is installed."""
    if (folder / _ADAPTER).is_file():
        raise ModelError(
            f"{folder} holds an adapter ({_ADAPTER}), and only whole models are run; merge it into its model "
            "(`merge_and_unload` of PEFT, then `save_pretrained`), or remove the adapter's files to run the model "
            "without it"
        )


def _quantised(config: Any, name: str) -> bool:
    """True where the configuration says that weights are quantised. ModelError for a method that nothing here reads.

    Transformers skips such a method and reads the numbers as they stand.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    found = [
        given
        for part in (config, config.get_text_config())
        for field in ("quantization_config", "compression_config")
        if (given := getattr(part, field, None)) is not None
    ]
    for given in found:
        stated = given if isinstance(given, dict) else given.to_dict()
        try:
            known = AutoHfQuantizer.supports_quant_method(stated)
        except ValueError:
            known = False
        if not known:
            raise ModelError(
                f"the weights of {name} are quantised in a way that is unknown here (quant_method "
                f"{stated.get('quant_method')!r}); use the original weights, or ones quantised in another way"
            )
    return bool(found)


def _check_complete(report: dict[str, Any], folder: Path, name: str) -> None:
    """Raise ModelError where weights were not in the folder. Transformers fills those with random numbers.

    Weights that the model shares with others, such as a head tied to the embedding, count as there. Weights in the
    folder that the model has no place for are logged.
    """
    missing = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if missing:
        raise ModelError(
            f"{folder} lacks weights of {name}: {_listed(missing)}; they would be random numbers. Copy or download the "
            "model again, with all its *.safetensors files"
        )
    if unused := sorted(report["unexpected_keys"]):
        _log.warning("the model has no place for some weights in its folder", weights=_listed(unused))


def _listed(names: Sequence[str]) -> str:
    """The first few names, and how many there are beyond."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _refuse_pickles(folder: Path, name: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
    held = (
        f"it holds pickled weights ({', '.join(sorted(pickled))}), which can run code" if pickled else "none"
    )
    raise ModelError(f"{name} has no *.safetensors weights ({held}); convert it with save_pretrained")


def _configuration(folder: Path, name: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{name} brings its own Python code, which is never run here; use a model whose architecture is "
                "part of transformers"
            ) from None
        raise ModelError(f"the configuration of {name} cannot be read: {error}") from None


def _auto_class(config: Any, name: str) -> Any:
    """The transformers class that loads this configuration: for causal language models, or for those with images."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not config.is_encoder_decoder:
        return AutoModelForImageTextToText
    raise ModelError(
        f"{name} is of type {config.model_type!r}, which is no causal language model; only models that continue a "
        "text from left to right can be monitored"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Switch off transformers' progress bars, which would stay on the screen; the weights are on disk already."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
