"""The fixed texts of the self-test: prose, dialogue, code, numbers and several languages, written for this project."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from monitor.model.load.model import LoadedModel

FILE = Path(__file__).parent / "texts.jsonl"


@dataclass(frozen=True)
class Texts:
    """The texts as token ids of one model."""

    ids: tuple[tuple[int, ...], ...]
    """Token ids of every text."""
    bos: int | None
    """The token that every text begins with; None where none does."""
    digest: str
    """`sha256:` over the file of texts."""


def load_texts() -> tuple[list[str], str]:
    """The texts and their digest."""
    content = FILE.read_bytes()
    lines = content.decode("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines], f"sha256:{hashlib.sha256(content).hexdigest()}"


def texts_for(loaded: LoadedModel) -> Texts:
    """The texts, tokenised as the server tokenises requests."""
    texts, digest = load_texts()
    ids = tuple(tuple(loaded.text.ids(text)[: loaded.context]) for text in texts)
    return Texts(ids, loaded.text.bos, digest)
