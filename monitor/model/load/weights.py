"""Load the weights of a transformers model from a folder.

Only safetensors are read, no Python code from the folder is run, and quantised weights stay quantised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from monitor.errors import ModelError


def load_weights(folder: Path, name: str, dtype: torch.dtype | str, device: torch.device | None) -> Any:
    """The model in evaluation mode, without gradients, on `device`. Raises ModelError.

    With `device` None its layers are spread over all devices. A multimodal model is loaded whole and used with text
    alone. A quantised model needs the library of its quantisation to be installed.
    """
    from safetensors import SafetensorError

    _refuse_pickles(folder, name)
    config = _configuration(folder, name)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    quantised = getattr(config, "quantization_config", None) is not None
    if device is None:
        options["device_map"] = "auto"
    elif quantised:
        # Quantised weights are laid out for their device while they load.
        options["device_map"] = {"": device}
    try:
        with no_progress_bar():
            model = _auto_class(config, name).from_pretrained(folder, config=config, **options)
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
    if device is not None and not quantised:
        model = model.to(device)
    return model.eval().requires_grad_(False)


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
