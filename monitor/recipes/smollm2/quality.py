"""The quality of the dictionary on each corpus by itself, on documents that nothing was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.packed_text import Document, batches, document_of, pack
from monitor.dictionary.training.quality import DictionaryQuality, measure_quality
from monitor.dictionary.training.stream import FORWARD
from monitor.model.load.model import load_model
from monitor.model.offline.residuals import Harvester
from monitor.model.prompts import DocumentReader
from monitor.recipes.corpus import YARDSTICK, CorpusText
from monitor.recipes.smollm2.plan import CONTEXT, SHARES
from monitor.recipes.smollm2.texts import records_of

MEASURED = (*(name for name in SHARES if name != "answers"), "labelled/truth", YARDSTICK)
"""Corpora that a dictionary is measured on; the last two are in no training text."""


def quality_by_corpus(
    model: str,
    dictionary: Path,
    corpora: Mapping[str, Sequence[CorpusText]],
    *,
    tokens: int,
    dtype: str = "auto",
) -> Iterator[tuple[str, dict[str, float]]]:
    """The measures of a dictionary on the held-out documents of each corpus, on `tokens` tokens of each at most.

    Args:
        model: the model that the dictionary belongs to.
        dictionary: its folder.
        corpora: documents by corpus.
        tokens: of each corpus.
        dtype: number type of the model's weights.

    Corpora that fill no row are left out.
    """
    bundle = load_dictionary(dictionary)
    loaded = load_model(model, dtype=dtype)
    harvester = Harvester(loaded, bundle.card.layer)
    read, begin = DocumentReader(loaded), loaded.text.begin
    limit = bundle.card.norm_limit
    assert limit is not None, "a trained dictionary has a norm limit"
    for name in MEASURED:
        rows = pack(_held_out(name, corpora.get(name, ())), read, CONTEXT, begin)
        held = list(batches(islice(rows, max(1, tokens // CONTEXT)), FORWARD))
        if held:
            measured = measure_quality(
                bundle.autoencoder,
                held,
                harvester.residuals,
                harvester.logits,
                limit=limit,
            )
            yield name, _row(measured)


def _held_out(name: str, documents: Sequence[CorpusText]) -> Iterator[Document]:
    for record in records_of(name, documents, "heldout"):
        yield document_of(record)


def _row(found: DictionaryQuality) -> dict[str, float]:
    return {
        "tokens": found.tokens,
        "l0": round(found.l0, 2),
        "fvu": round(found.fvu, 4),
        "ce_clean": round(found.ce_clean, 4),
        "ce_spliced": round(found.ce_spliced, 4),
        "ce_zero": round(found.ce_zero, 4),
        "ce_recovered": round(found.ce_recovered, 4),
    }


def as_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """The measures as a table in markdown."""
    columns = "| held-out corpus | tokens | L0 | FVU | cross-entropy clean / spliced / zero | recovered |\n"
    return f"{columns}|---|---|---|---|---|---|\n" + "".join(
        f"| {name} | {row['tokens']:,} | {row['l0']:.1f} | {row['fvu']:.3f} | "
        f"{row['ce_clean']:.2f} / {row['ce_spliced']:.2f} / {row['ce_zero']:.2f} | {row['ce_recovered']:.3f} |\n"
        for name, row in found.items()
    )


def write_quality(found: Mapping[str, Any], folder: Path) -> None:
    """Write the measures as `corpora.json` to a folder."""
    (folder / "corpora.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
