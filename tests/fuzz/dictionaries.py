"""Target: one file of a dictionary of any family, with everything else of that dictionary as it should be."""

from __future__ import annotations

import importlib
import inspect
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.cards import card_file, labels, statistics
from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError, NotFound
from tests.dictionary.formats.saes import FEATURES, make
from tests.fuzz import containers
from tests.fuzz.files import FolderTarget
from tests.fuzz.mutate import mutated
from tests.fuzz.target import ACCEPTED, refused

_LAYOUTS = ("layouts", "layouts_pickled", "layouts_openmoss")
"""Modules of tests/dictionary/formats whose functions write a checkpoint of a family below a root."""


class Subject(NamedTuple):
    """One file of one dictionary."""

    source: Path
    file: Path
    content: bytes


class Dictionaries(FolderTarget):
    """The first two bytes of an input choose the file; the rest is what it holds."""

    name = "dictionary"
    words = (
        b'"d_sae"',
        b'"architecture"',
        b'"jumprelu"',
        b'"topk"',
        b'"k": ',
        b"NaN",
        b'"apply_b_dec_to_input"',
    )

    @contextmanager
    def opened(self) -> Iterator[None]:
        with warnings.catch_warnings(), super().opened():
            warnings.simplefilter("ignore")
            yield

    def prepare(self) -> None:
        self._subjects = [subject for root in self._roots() for subject in _files(root)]
        assert len(self._subjects) < 1 << 16

    def _roots(self) -> Iterator[tuple[Path, Path]]:
        """Each dictionary's own root, and what is to be loaded of it."""
        yield self._own()
        for module in _LAYOUTS:
            found = importlib.import_module(f"tests.dictionary.formats.{module}")
            for name, make_layout in vars(found).items():
                if name.startswith("_") or not inspect.isfunction(make_layout):
                    continue
                if make_layout.__module__ == found.__name__ and "Layout" in str(
                    inspect.signature(make_layout).return_annotation
                ):
                    root = self.folder / f"{module}-{name}"
                    root.mkdir()
                    yield root, root / make_layout(root).source

    def _own(self) -> tuple[Path, Path]:
        """Our own layout, with statistics and labels beside it."""
        root = self.folder / "own"
        save_saelens(
            root,
            make(Activation.JUMPRELU),
            DictionaryCard(model_name="a model", hook_name="blocks.1.hook_resid_post"),
        )
        digest = load_dictionary(root).digest
        measured = statistics.FeatureStatistics(
            maximum=torch.rand(FEATURES) + 0.5,
            density=torch.rand(FEATURES),
            tokens=100,
            dictionary_digest=digest,
        )
        statistics.save(root, measured)
        labels.save(root, labels.Labels({1: "one"}, {2: "two"}, digest))
        return root, root

    def corpus(self) -> Sequence[bytes]:
        return [number.to_bytes(2, "big") + subject.content for number, subject in enumerate(self._subjects)]

    def mutate(self, data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
        """As the kind of file wants it, or any bytes."""
        head, body = data[:2], data[2:]
        suffix = self._subjects[int.from_bytes(head, "big") % len(self._subjects)].file.suffix
        if chance.random() < 0.7 and suffix == ".safetensors":
            return head + containers.safetensors(body, chance, [])
        if chance.random() < 0.7 and suffix in (".npz", ".pt", ".pth"):
            return head + containers.archive(body, chance, [])
        # Configurations are small; of weights the beginning decides.
        return head + mutated(body[:8192], chance, [], self.words) + body[8192:]

    def run(self, data: bytes) -> str:
        subject = self._subjects[int.from_bytes(data[:2], "big") % len(self._subjects)]
        subject.file.write_bytes(data[2:])
        try:
            found = load_dictionary(subject.source)
            found.autoencoder.encode(torch.zeros(1, found.autoencoder.d_model))
            labels.load(found.path, found.digest)
        except DictionaryError as error:
            return refused(error)
        finally:
            subject.file.write_bytes(subject.content)
        return ACCEPTED


class Cards(FolderTarget):
    """The cards of a dictionary, compressed or broken."""

    name = "cards"
    words = (b'"feature"', b'"contexts"', b'"tokens"')

    def corpus(self) -> Sequence[bytes]:
        import lzma

        from monitor.pairs.tiny import dictionary_path

        with lzma.open(dictionary_path() / "cards.jsonl.xz") as file:
            beginning = b"".join(file.readline() for _ in range(6))
        return [beginning]

    def mutate(self, data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
        import lzma

        if chance.random() < 0.2:
            return b"\0" + mutated(lzma.compress(data), chance, corpus)
        return mutated(data, chance, corpus, self.words)

    def run(self, data: bytes) -> str:
        import lzma

        content = data[1:] if data[:1] == b"\0" else lzma.compress(data, preset=0)
        (self.folder / "cards.jsonl.xz").write_bytes(content)
        try:
            card_file.load_header(self.folder)
            for _ in card_file.load_cards(self.folder):
                pass
            card_file.load_card(self.folder, 0)
        except (DictionaryError, NotFound) as error:
            return refused(error)
        return ACCEPTED


def _files(root: tuple[Path, Path]) -> Iterator[Subject]:
    folder, source = root
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield Subject(source, file, file.read_bytes())


__all__ = ["Cards", "Dictionaries"]
