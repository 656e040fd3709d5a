"""How tests of readers say that a dictionary is refused, and how they change a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitor.dictionary.formats import read_dictionary
from monitor.errors import DictionaryError


def refused(source: Path, message: str, **options: str) -> str:
    """The whole message of the error, in which `message` (a pattern) must be found."""
    with pytest.raises(DictionaryError, match=message) as caught:
        read_dictionary(source, **options)
    return str(caught.value)


def change(path: Path, **entries: object) -> None:
    """Overwrite these entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
