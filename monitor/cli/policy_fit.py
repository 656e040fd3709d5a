"""`sae-monitor policy fit`: writes the lock of every policy of a folder, and prints the cards.

Knows how files, model and fit are joined. Does not know how a detector is learnt.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.console import stderr_console, stdout_console
from monitor.cli.errors import InputError
from monitor.cli.pair import DeviceOption, DictionaryOption, ModelOption, open_pair
from monitor.cli.policy_cards import card_table
from monitor.cli.texts import corpus_files, in_equal_shares
from monitor.errors import NotFound, PolicyError
from monitor.policy.examples import BENIGN_FILE, read_benign
from monitor.policy.fit import FitSettings, Inputs, LabelledTexts, fit_policy
from monitor.policy.loader import Source, read_folder
from monitor.policy.lock import DictionaryRef, LockModel, ModelRef, write_lock

if TYPE_CHECKING:
    from monitor.cli.policy_reader import PairReader

LEAST_BENIGN = 100
ASKED, ANSWERED = "Human: ", "\n\nAssistant:"
FURTHER = 600
"""Most excerpts that are taken from further files."""
SHORTEST, EXCERPT = 40, 640
"""Characters of an excerpt, at least and at most."""

BenignOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--benign",
        help="Further files or folders of benign texts for the thresholds, beside benign.jsonl. Repeatable.",
    ),
]


def fit(
    policies: Annotated[Path, typer.Argument(help="Folder of policies.")],
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    extra: Annotated[
        Path | None,
        typer.Option(help="Folder CATEGORY/SOURCE.jsonl; the training half of its rows teaches as well."),
    ] = None,
    benign: BenignOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Names of policies to fit; all by default.")] = None,
    features: Annotated[int, typer.Option(min=1, max=256, help="Most detection features per policy.")] = 48,
    rounds: Annotated[int, typer.Option(min=2, max=200, help="Random halves that vote on features.")] = 12,
    positive_only: Annotated[
        bool, typer.Option("--positive-only", help="No feature may speak against a concept.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Find features, set thresholds, choose clamps and measure every policy; write NAME.lock.yaml beside each."""
    started = time.monotonic()
    settings = FitSettings(features, rounds, seed, signed=not positive_only)
    made = _fit_all(policies, _Asked(model, dictionary, extra, benign or [], only or [], device), settings)
    console = stdout_console()
    console.print(card_table(made))
    for lock in made:
        if lock.card is not None:
            console.print(f"{lock.policy}: {lock.card.note}", soft_wrap=True)
    console.print(f"{len(made)} locks written in {time.monotonic() - started:.0f} s")


@dataclass(frozen=True)
class _Asked:
    """What the command line says."""

    model: str | None
    dictionary: Path | None
    extra: Path | None
    benign: list[Path]
    only: list[str]
    device: str


def _fit_all(folder: Path, asked: _Asked, settings: FitSettings) -> list[LockModel]:
    """Fit and write every policy asked for; PolicyError at the end for those that could not be fitted."""
    from monitor.cli.policy_reader import PairReader

    sources = _chosen(read_folder(folder, locks=False), asked.only)
    needed = [source for source in sources if source.model.needs_lock]
    texts = _benign_texts(folder, asked.benign)
    console = stderr_console()
    with console.status("loading") as status:
        reader = PairReader(open_pair(asked.model, asked.dictionary, asked.device))
        status.update(f"reading {len(texts)} benign texts")
        inputs = _inputs(reader, texts)
        made, failed = [], []
        for number, source in enumerate(needed, 1):
            name = source.model.metadata.name
            status.update(f"fitting {name} ({number} of {len(needed)})")
            started = time.monotonic()
            try:
                lock = fit_policy(
                    source.model, source.examples, inputs, _extra(asked.extra, source), settings
                )
            except PolicyError as error:
                failed.append(str(error))
                continue
            written = write_lock(source.path, lock)
            made.append(lock)
            console.print(f"{written} ({time.monotonic() - started:.0f} s)", soft_wrap=True)
    if failed:
        stdout_console().print(card_table(made))
        raise PolicyError("\n".join([f"{len(failed)} policies could not be fitted:", *failed]))
    return made


def _chosen(sources: Sequence[Source], only: Sequence[str]) -> list[Source]:
    names = {source.model.metadata.name for source in sources}
    unknown = sorted(set(only) - names)
    if unknown:
        raise NotFound(f"no policy called {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    return [source for source in sources if not only or source.model.metadata.name in only]


def _benign_texts(folder: Path, files: Sequence[Path]) -> list[str]:
    """The folder's benign texts, then excerpts of further files: each text once."""
    path = folder / BENIGN_FILE
    texts = list(read_benign(path)) if path.exists() else []
    further = in_equal_shares(corpus_files(files), EXCERPT) if files else iter(())
    texts.extend(_excerpt(text) for text in itertools.islice(further, FURTHER))
    texts = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(texts) < LEAST_BENIGN:
        raise InputError(
            f"{len(texts)} benign texts cannot set a threshold; put at least {LEAST_BENIGN} into {path}, "
            "or name files with --benign"
        )
    return texts


def _excerpt(text: str) -> str:
    """The beginning of a text, of a length that differs from text to text; of half the dialogues the bare request.

    Prompts reach a server without `Human:` before them as well, and thresholds must hold for those too.
    """
    spread = hashlib.sha256(text.encode()).digest()
    if spread[1] % 2 and text.startswith(ASKED):
        text = text.removeprefix(ASKED).split(ANSWERED, 1)[0]
    return text[: int(SHORTEST * (EXCERPT / SHORTEST) ** (spread[0] / 255))]


def _inputs(reader: PairReader, texts: Sequence[str]) -> Inputs:
    from monitor.cli.later_reader import later_residuals

    pair = reader.pair
    read = reader.read(texts)
    return Inputs(
        reader=reader,
        model=ModelRef(name=Path(pair.loaded.name).name, digest=pair.loaded.digest),
        dictionary=DictionaryRef(
            digest=pair.dictionary.digest, features=pair.dictionary.autoencoder.features
        ),
        benign=texts,
        benign_readings=read,
        benign_density=read.tokens.density(),
        later=later_residuals(reader),
    )


def _extra(folder: Path | None, source: Source) -> LabelledTexts | None:
    if folder is None or source.model.concept is None:
        return None
    from monitor.cli.policy_extra import extra_rows

    return extra_rows(folder, source.model.metadata.category)
