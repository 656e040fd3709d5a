"""What several families share: names inside weights, layers inside paths, whole numbers in configurations.

Knows no family.
"""

from __future__ import annotations

import re
from typing import Any

from monitor.dictionary.formats.files import PICKLES
from monitor.dictionary.formats.place import Place, weights_of
from monitor.dictionary.formats.tensors import Tensors
from monitor.errors import DictionaryError


def single(place: Place, wants: str) -> str:
    """The one weights file of a place; DictionaryError where the caller has to say which."""
    found = weights_of(place)
    if found is None:
        raise DictionaryError(
            f"{place.label} holds no single weights file; name the file, as in {place.label.rstrip('/')}/FILE. "
            f"This format wants {wants}"
        )
    return found


def names_inside(place: Place) -> frozenset[str]:
    """Names of the tensors in the one weights file of a place; none where there is no such file, or many."""
    found = weights_of(place)
    if found is None:
        return frozenset()
    return Tensors(place.path(found)).names


def number_in(address: str, pattern: str) -> int | None:
    """The number that the last match of `pattern` in a path captures."""
    found = re.findall(pattern, address)
    return int(found[-1]) if found else None


def whole(config: dict[str, Any], name: str, where: object) -> int:
    """A whole number of at least 1 from a configuration."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DictionaryError(f"{where}: {name} is {value!r}; it must be a whole number of at least 1")
    return value


def positive(value: Any, name: str, where: object) -> float:
    """A number above 0 from a configuration."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise DictionaryError(f"{where}: {name} is {value!r}; it must be a number above 0")
    return float(value)


def pickled(name: str) -> bool:
    """True for names of pickled files."""
    return name.endswith(PICKLES)
