"""Labelled sources read by a model and its dictionary: texts in, halves with pooled readings out.

Knows tokenising and how the judged part of a text is found among its tokens. Does not know detectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from monitor.dictionary.cards.card_file import Context
from monitor.dictionary.evaluation.readings import LabelledReadings
from monitor.dictionary.evaluation.source import LabelledSource, SourceText
from monitor.dictionary.explore.text_pooling import pool
from monitor.errors import InputError
from monitor.lab.pair import Pair, need_statistics


class LabelledReader:
    """Reads texts with a pair."""

    def __init__(self, pair: Pair, longest: int) -> None:
        self.pair = pair
        self._longest = min(longest, pair.loaded.context)
        maximum = need_statistics(pair.dictionary).maximum
        self._unit = torch.where(maximum > 0, 1 / maximum, 0.0)
        self._maximum = maximum

    def half(self, source: LabelledSource) -> LabelledReadings:
        """All rows of a source, both halves; cut with `source.train`."""
        return self.read(source.rows, source.units)

    def read(self, rows: tuple[SourceText, ...], units: np.ndarray) -> LabelledReadings:
        """Rows with pooled readings over their judged parts."""
        tokens = [self.tokens(row) for row in rows]
        pooled = pool(
            [ids for ids, _ in tokens],
            self.pair.residuals,
            self.pair.dictionary.autoencoder,
            bos=self.pair.bos,
            starts=[start for _, start in tokens],
        )
        return LabelledReadings(
            texts=tuple(row.text for row in rows),
            replies=tuple(row.text[row.reply_start :] for row in rows),
            labels=np.array([row.label for row in rows], bool),
            units=units,
            maximum=(pooled.maximum * self._unit).numpy(),
            mean=(pooled.mean * self._unit).numpy(),
            residual=pooled.residual.numpy(),
        )

    def tokens(self, row: SourceText) -> tuple[list[int], int]:
        """Token ids of a row, and the first position that counts.

        Too long a text loses its end; a response loses its beginning instead, as its end is what is judged.
        """
        coded = self.pair.loaded.tokenizer(row.text, return_offsets_mapping=True, verbose=False)
        ids, offsets = coded["input_ids"], coded["offset_mapping"]
        begin = row.reply_start
        start = next((i for i, (_, end) in enumerate(offsets) if end > begin), len(ids) - 1) if begin else 1
        over = len(ids) - self._longest
        if over <= 0:
            return ids, start
        if not begin:
            return ids[: self._longest], start
        return ids[:1] + ids[over + 1 :], max(1, start - over)

    def strongest(self, row: SourceText, feature: int, *, before: int = 16, after: int = 7) -> Context:
        """The place in a row where a feature fires most, with its surroundings."""
        ids, start = self.tokens(row)
        x = self.pair.residuals(torch.tensor([ids]))[0]
        activation = self.pair.dictionary.autoencoder.encode(x)[:, feature].float().cpu()
        peak = start + int(activation[start:].argmax())
        window = range(max(1, peak - before), min(len(ids), peak + after + 1))
        percent = (100 * activation / max(float(self._maximum[feature]), 1e-9)).round().int()
        return Context(
            peak=float(activation[peak]),
            at=peak - window.start,
            tokens=tuple(self.pair.speller.pieces([ids[i] for i in window])),
            levels=tuple(int(percent[i]) for i in window),
        )


def labelled_files(data: Path, only: list[str]) -> dict[tuple[str, str], Path]:
    """CONCEPT/SOURCE.jsonl files of a folder, or of the `labelled` folder in it, by concept and source."""
    folder = data / "labelled" if (data / "labelled").is_dir() else data
    found = {(path.parent.name, path.stem): path for path in sorted(folder.glob("*/*.jsonl"))}
    if not found:
        raise InputError(f"{data} holds no CONCEPT/SOURCE.jsonl; give the folder of labelled texts")
    unknown = [name for name in only if not any(name in (source, concept) for concept, source in found)]
    if unknown:
        raise InputError(
            f"no concept or source {unknown[0]!r}; there are: {', '.join('/'.join(k) for k in found)}"
        )
    return {key: path for key, path in found.items() if not only or key[0] in only or key[1] in only}


def read_rows(path: Path) -> tuple[SourceText, ...]:
    """The rows of one file; InputError where a line is no row."""
    from monitor.lab.splits import labelled_rows

    try:
        found = labelled_rows(path)
    except ValueError as error:
        raise InputError(str(error)) from None
    return tuple(
        SourceText(row["text"], bool(row["label"]), row["kind"], row["group"])
        for row in found
        if row["text"].strip()
    )
