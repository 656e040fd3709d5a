"""`sae-monitor dictionary describe`: measures every feature on a corpus, and writes statistics, cards and labels."""

from __future__ import annotations

import dataclasses
import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.opened_pair import opened_pair
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.labels import summary_text
from monitor.cli.show.progress import followed, work_of
from monitor.dictionary.cards import card_file, firing_file, labels, statistics
from monitor.dictionary.cards.description import CorpusDescription, DescribeOptions
from monitor.dictionary.cards.description import describe as describe_features
from monitor.dictionary.cards.feature_cards import make_cards, make_firings, make_places
from monitor.dictionary.labeller.dictionary_labels import (
    FeatureLabel,
    in_place_of,
    label_dictionary,
    summary,
)
from monitor.dictionary.packed_text import pack
from monitor.lab.pair import Pair, open_labels
from monitor.lab.texts import corpus_files, in_equal_shares
from monitor.model.prompts import not_read


def describe(
    data: Annotated[
        list[Path],
        typer.Option(
            help="Texts to read: .txt, .jsonl (also .xz, .gz), .md, .rst or .py files, or folders of them. Repeatable."
        ),
    ],
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    tokens: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of tokens to read, the same share from each file. How long that takes is said after the "
            "first seconds.",
        ),
    ] = 1_000_000,
    length: Annotated[
        int, typer.Option(min=2, help="Tokens that the model reads at once, at most its context.")
    ] = 256,
    contexts: Annotated[int, typer.Option(min=1, max=64, help="Passages to keep for each feature.")] = 8,
    document: Annotated[
        int,
        typer.Option(min=1, help="Most characters to read of each document; a .txt file is read to its end."),
    ] = 20_000,
    corpus: Annotated[
        str,
        typer.Option(
            help="Name of the corpus for the files that are written. Default: the names of the files."
        ),
    ] = "",
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Measure every feature over a corpus: maximum, density, top contexts, promoted tokens, neighbours, labels.

    Writes statistics.safetensors, cards.jsonl.xz and the automatic labels of labels.json beside the dictionary, and
    firings.jsonl.xz, from which `features label --auto` makes the labels again.
    """
    files = corpus_files(data)
    pair = opened_pair(
        model,
        dictionary,
        dictionary_format,
        device,
        pair_name=pair_name,
        skip_self_test=skip_self_test,
        measured=False,
    )
    named = open_labels(pair.dictionary)  # before the long part: labels of another dictionary are refused
    length = min(length, pair.loaded.context)
    read = pair.document_reader
    rows = islice(
        pack(in_equal_shares(files, document), read, length, pair.loaded.text.begin), -(-tokens // length)
    )
    said = corpus or ", ".join(path.name for path in data)
    started = time.monotonic()
    with work_of("reading", tokens, "tokens") as advance:
        found = describe_features(
            rows,
            pair.residuals,
            pair.dictionary.autoencoder,
            DescribeOptions(pair.norm_limit, keep=2 * contexts),
            corpus=said,
            dictionary_digest=pair.dictionary.digest,
            progress=advance,
        )
    seconds = time.monotonic() - started
    if read.left_out:
        note = not_read(read.left_out)
        stderr_console().print(note, soft_wrap=True)
        numbers = dataclasses.replace(found.statistics, corpus=f"{found.statistics.corpus} ({note})")
        found = dataclasses.replace(found, statistics=numbers)
    made, written = _write(pair, found, named, contexts)
    _report(found, seconds, written)
    stdout_console().print(summary_text(summary(made)), soft_wrap=True)


def _write(
    pair: Pair, found: CorpusDescription, named: labels.Labels, contexts: int
) -> tuple[list[FeatureLabel], list[Path]]:
    folder = pair.dictionary.path
    header = card_file.CardsHeader(
        features=pair.dictionary.autoencoder.features,
        model=pair.loaded.digest,
        dictionary_digest=pair.dictionary.digest,
        corpus=found.statistics.corpus,
        tokens=found.statistics.tokens,
    )
    sae = pair.dictionary.autoencoder
    made = list(
        make_cards(
            found, sae, pair.unembedding, pair.speller, start=pair.loaded.text.begin, contexts=contexts
        )
    )
    start, speller = pair.loaded.text.begin, pair.speller
    firings = firing_file.Firings(
        tuple(make_places(found, speller, start=start)),
        list(make_firings(found, speller, start=start, contexts=contexts)),
    )
    written = [
        statistics.save(folder, found.statistics),
        firing_file.save(folder, pair.dictionary.digest, firings),
        card_file.save(folder, header, made),
    ]
    new = list(followed(label_dictionary(made, firings), "labelling", len(made), "features"))
    return new, [*written, labels.save(folder, in_place_of(named, new))]


def _report(found: CorpusDescription, seconds: float, written: list[Path]) -> None:
    numbers = found.statistics
    dead = int((numbers.maximum == 0).sum())
    console = stdout_console()
    rate = numbers.tokens / seconds
    console.print(
        f"{numbers.tokens:,} tokens in {seconds:.0f} s ({rate:,.0f} tokens/s, {3600 * rate / 1e6:.1f} million/hour)"
    )
    console.print(
        f"mean active features per token {found.l0:.1f}, never active {dead} of {numbers.features} "
        f"({100 * dead / numbers.features:.1f} %), norm outliers left out {found.outliers}"
    )
    for path in written:
        console.print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", soft_wrap=True)
