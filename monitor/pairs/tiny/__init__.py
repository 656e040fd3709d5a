"""The pair `tiny`: a language model of 8.4 million parameters and its dictionary, for tests and for use offline."""

from pathlib import Path

__all__ = ["dictionary_path", "model_path"]


def model_path() -> Path:
    """The folder of the model: configuration, bfloat16 weights and tokenizer, as transformers loads them."""
    return Path(__file__).parent / "model"


def dictionary_path() -> Path:
    """The folder of the dictionary, in the SAELens layout, with statistics, cards and labels."""
    return Path(__file__).parent / "dictionary"
