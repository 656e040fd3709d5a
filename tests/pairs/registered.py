"""Pairs that are known by name while a test runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from monitor.pairs import registry
from monitor.pairs.named_pair import NamedPair


@contextmanager
def registered(pair: NamedPair) -> Iterator[NamedPair]:
    """The pair is in the registry."""
    registry.register(pair)
    try:
        yield pair
    finally:
        registry.unregister(pair.name)
