"""What policies run on, as the commands that read texts have it: the pair, with its names and its width.

Knows how a pair becomes what policies are resolved for. Does not know what the commands do with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from monitor.policy.files.loader import load_policies
from monitor.policy.files.resolve import applies
from monitor.policy.files.source import Running, Source
from monitor.policy.policyset import PolicySet

if TYPE_CHECKING:
    from monitor.cli.policy_reader import PairReader


def running_of(reader: PairReader) -> Running:
    """The reader's model and dictionary, as policies are resolved for them."""
    pair = reader.pair
    return Running(
        pair.loaded.digest,
        pair.dictionary.digest,
        pair.dictionary.autoencoder.features,
        reader.maxima.tolist(),
        pair.loaded.d_model,
        (pair.loaded.name, Path(pair.loaded.name).name),
    )


def load_set(folder: Path, running: Running) -> PolicySet:
    """The policies of a folder that apply to what runs; PolicyError where they do not fit it."""
    return load_policies(
        folder,
        dictionary_digest=running.dictionary,
        model_digest=running.model,
        features=running.features,
        maxima=running.maxima,
        width=running.width,
        names=running.names,
    )


def bound_elsewhere(source: Source, running: Running) -> str:
    """Which models a policy is bound to, where the running one is none of them; otherwise empty."""
    match = source.model.match
    if match is None or match.models is None or applies(source, running):
        return ""
    return f"bound to {', '.join(match.models)}"
