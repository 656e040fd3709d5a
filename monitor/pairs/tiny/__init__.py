"""The pair `tiny`: a language model of 8.4 million parameters and its dictionary, for tests and trials offline."""

from pathlib import Path

__all__ = ["dictionary_path", "model_path"]


def model_path() -> Path:
    """The folder of the model: configuration, bf16 safetensors and tokenizer, as transformers loads them."""
    return Path(__file__).parent / "model"


def dictionary_path() -> Path:
    """The folder of the dictionary."""
    return Path(__file__).parent / "dictionary"
