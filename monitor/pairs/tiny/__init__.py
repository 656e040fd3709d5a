"""The pair `tiny`: a language model of 8.4 million parameters and its dictionary, for tests and for use offline."""

from pathlib import Path

from monitor.pairs.named_pair import NamedPair

__all__ = ["PAIR", "dictionary_path", "model_path"]


def model_path() -> Path:
    """The folder of the model: configuration, bfloat16 weights and tokenizer, as transformers loads them."""
    return Path(__file__).parent / "model"


def dictionary_path() -> Path:
    """The folder of the dictionary, in the SAELens layout, with statistics, cards and labels."""
    return Path(__file__).parent / "dictionary"


def _weights() -> Path | None:
    return model_path() if model_path().is_dir() else None


PAIR = NamedPair(
    name="tiny",
    what="a demonstration model of 8.4 million parameters, 8 layers, 256 wide",
    licence="Apache-2.0; the texts that it was trained on are named in NOTICE.md",
    model="tiny",
    weights=_weights,
    dictionary=dictionary_path(),
)
