"""Helpers that several format readers use: the weights file of a folder, and numbers in paths and configurations."""

from __future__ import annotations

import re
from typing import Any

from monitor.dictionary.formats.files import PICKLES
from monitor.dictionary.formats.location import Location, weights_of
from monitor.dictionary.formats.tensors import Tensors
from monitor.errors import DictionaryError


def single(location: Location, wants: str) -> str:
    """Name of the location's only weights file. Raises DictionaryError where there are none or several."""
    found = weights_of(location)
    if found is None:
        raise DictionaryError(
            f"{location.label} does not hold exactly one weights file; name the file, as in "
            f"{location.label.rstrip('/')}/FILE. This format wants {wants}"
        )
    return found


def names_inside(location: Location) -> frozenset[str]:
    """Names of the tensors in the location's only weights file; empty where there are none or several."""
    found = weights_of(location)
    if found is None:
        return frozenset()
    return Tensors(location.path(found)).names


def number_in(address: str, pattern: str) -> int | None:
    """The number that the last match of `pattern` in a path captures; None where nothing matches."""
    found = re.findall(pattern, address)
    return int(found[-1]) if found else None


def whole(config: dict[str, Any], name: str, where: object) -> int:
    """The whole number called `name` in a configuration. Raises DictionaryError where it is not at least 1."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DictionaryError(f"{where}: {name} is {value!r}; it must be a whole number of at least 1")
    return value


def positive(value: Any, name: str, where: object) -> float:
    """`value` as a float. Raises DictionaryError where it is not a number above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise DictionaryError(f"{where}: {name} is {value!r}; it must be a number above 0")
    return float(value)


def pickled(name: str) -> bool:
    """True where a file of this name is pickled."""
    return name.endswith(PICKLES)
