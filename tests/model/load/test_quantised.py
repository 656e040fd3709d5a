"""Models with weights in eight bits, loaded from a folder as users have them: watched, clamped, generated from.

Needs the extra `quantised`; each library's tests are left out where it is not installed.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from monitor.model.load.model import LoadedModel, load_model
from tests.model.engine.test_engine import CLAMPS
from tests.model.load.test_model import saved
from tests.model.running import LAYER, WATCHED, running
from tests.model.tiny import dictionary, maxima, plain_generate, prompt, tokenizer

pytestmark = [
    # Of the libraries themselves, about torch and about casts that they make on the CPU.
    pytest.mark.filterwarnings("ignore"),
]


def configuration(library: str) -> Any:
    """Eight bits per weight, activations as they are (torchao) or in eight bits as well (bitsandbytes)."""
    found = pytest.importorskip(library, reason=f"needs {library} (extra quantised)", exc_type=ImportError)
    if library == "torchao":
        from transformers import TorchAoConfig

        return TorchAoConfig(importlib.import_module("torchao.quantization").Int8WeightOnlyConfig())
    from transformers import BitsAndBytesConfig

    assert found
    return BitsAndBytesConfig(load_in_8bit=True)


def quantised(folder: Path, library: str, kind: str) -> LoadedModel:
    """A small random model of a family, written in eight bits and loaded again."""
    settings = configuration(library)
    plain = saved(folder / "plain", kind)
    model = AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=settings, device_map={"": "cpu"}, dtype=torch.float32
    )
    model.save_pretrained(folder / "small")
    tokenizer().save_pretrained(folder / "small")
    return load_model(folder / "small", device="cpu")


@pytest.mark.parametrize("kind", ["llama", "stablelm"])
@pytest.mark.parametrize(("library", "near"), [("torchao", 1e-4), ("bitsandbytes", 2e-2)])
def test_readings_and_clamps_are_those_of_a_plain_forward(
    tmp_path: Path, library: str, near: float, kind: str
) -> None:
    """Of the same quantised model over the whole text; what rounding costs is the self-test's business."""
    loaded, sae = quantised(tmp_path, library, kind), dictionary()
    with running(loaded, sae) as run:
        calls = [(run.call(prompt(n), new=4, clamps=c), c) for n in range(3) for c in ((), CLAMPS)]
        for call, clamps in calls:
            assert call.finished().coverage.complete
            with loaded.passes:
                tokens, activations = plain_generate(
                    loaded.model, loaded.layers[LAYER], sae, maxima(), call.ids, 4, clamps
                )
            rows = len(call.readings)
            wanted = (activations[:rows, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()
            if library == "torchao":
                assert [token.token_id for token in call.tokens] == tokens
                np.testing.assert_allclose(call.readings, wanted, rtol=near, atol=near)
            else:  # its matrices are multiplied in half precision, so that a step over a threshold may differ
                prefill = len(call.ids)
                off = np.linalg.norm(call.readings[:prefill] - wanted[:prefill])
                assert off <= near * np.linalg.norm(wanted[:prefill])


@pytest.mark.parametrize("library", ["torchao", "bitsandbytes"])
def test_weights_stay_in_eight_bits(tmp_path: Path, library: str) -> None:
    loaded = quantised(tmp_path, library, "llama")
    kept = [
        type(module.weight).__name__
        for module in loaded.layers.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    assert kept
    assert set(kept) <= {"Int8Tensor", "Int8Params"}
