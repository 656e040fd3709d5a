"""The bundled demo: a small language model, its dictionary, and the recipe that makes both.

Knows where the shipped files lie. Importing it loads nothing.
"""

from pathlib import Path

__all__ = ["dictionary_path", "model_path"]


def model_path() -> Path:
    """Folder of the demo model: configuration, bf16 safetensors and tokenizer, for the library's Auto classes."""
    return Path(__file__).parent / "model"


def dictionary_path() -> Path:
    """Folder of the demo model's dictionary."""
    return Path(__file__).parent / "dictionary"
