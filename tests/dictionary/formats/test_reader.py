"""The records that reading returns, and that every reader follows the interface."""

import dataclasses
import inspect
from pathlib import Path

import pytest

from monitor.dictionary.formats import READERS, DictionaryCard, DictionaryParts, OpenedDictionary
from monitor.dictionary.formats.reader import FormatReader
from monitor.dictionary.sae import Activation
from tests.dictionary.formats.saes import make


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_every_reader_answers_as_the_interface_says(reader):
    assert reader.name == reader.name.lower()
    assert reader.wants, "an error names the files that a format wants"
    for name in ("detects", "read"):
        own = inspect.signature(getattr(type(reader), name))
        asked = inspect.signature(getattr(FormatReader, name))
        assert list(own.parameters) == list(asked.parameters), name
        assert own.return_annotation == asked.return_annotation, name


def test_what_was_read_cannot_be_changed():
    parts = DictionaryParts({}, {}, DictionaryCard(), ())
    opened = OpenedDictionary(make(Activation.RELU), DictionaryCard(), ())
    assert (parts.facts, opened.facts, opened.format, opened.home) == ((), (), "", Path())
    for record in (parts, opened):
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.facts = ("k=1",)
