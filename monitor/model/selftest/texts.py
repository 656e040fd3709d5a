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
    kinds: tuple[str, ...]
    """What kind of text each is: prose, dialogue, code and so on."""


def load_texts() -> tuple[list[str], str]:
    """The texts and their digest."""
    content = FILE.read_bytes()
    lines = content.decode("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines], f"sha256:{hashlib.sha256(content).hexdigest()}"


def texts_for(loaded: LoadedModel) -> Texts:
    """The texts, tokenised as the server tokenises requests."""
    texts, digest = load_texts()
    ids = tuple(tuple(loaded.text.ids(text)[: loaded.context]) for text in texts)
    kinds = _kinds()
    return Texts(ids, loaded.text.bos, digest, tuple(kinds[text] for text in texts))


def _kinds() -> dict[str, str]:
    lines = map(json.loads, FILE.read_text("utf-8").splitlines())
    return {line["text"]: line["kind"] for line in lines}
