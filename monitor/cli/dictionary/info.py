"""`sae-monitor dictionary info | convert`: shows what a dictionary is, and writes it in another layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monitor.cli.show.console import stdout_console
from monitor.cli.show.printable import printable

if TYPE_CHECKING:
    from monitor.dictionary.bundle import Dictionary
    from monitor.dictionary.sae import SparseAutoencoder

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="The dictionary: a folder, a weights file, or hub:ORG/NAME (with @REVISION and /FOLDER where needed).",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--dictionary-format",
        "--format",
        metavar="NAME",
        help="Checkpoint family of the dictionary, such as saelens. Default: found from its files.",
    ),
]


def info(dictionary: Source, format: Format = None) -> None:
    """Show what a dictionary is: its kind, size, layer, memory, digest, and what its training measured."""
    from monitor.dictionary.bundle import load_dictionary

    found = load_dictionary(dictionary, format=format)
    print_lines(_stated(found) | _arithmetic(found.autoencoder) | _costs(found) | _trained(found))


def convert(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the dictionary to.")],
    format: Format = None,
) -> None:
    """Write a dictionary of any family as a SAELens folder, and check that it reads back the same.

    Feature statistics are copied where activations keep their units.
    """
    from monitor.dictionary.bundle import load_dictionary
    from monitor.dictionary.conversion import convert as convert_dictionary

    found = load_dictionary(source, format=format)
    made = convert_dictionary(found, out)
    kept = "taken along" if made.statistics else "none; write them with `sae-monitor dictionary describe`"
    if made.refolded:
        kept = "left behind: activations are now in units of decoder rows of length 1"
    print_lines(
        {
            "from": f"{source} ({found.format})",
            "to": f"{out} (saelens)",
            "features": made.dictionary.autoencoder.features,
            "activations agree to": f"{made.activations:.1e} of the largest ({100 * made.active:.2g} % active)",
            "reconstructions agree to": f"{made.reconstruction:.1e}",
            "statistics": kept,
            "digest": made.dictionary.digest,
        }
    )


def _stated(found: Dictionary) -> dict[str, Any]:
    card = found.card
    return {
        "format": found.format,
        "model": card.model_name,
        "place": card.hook_name,
        "layer": card.layer,
        "BOS in training": card.prepend_bos,
        "context": card.context_size,
        "dataset": card.dataset,
        "declared L0": card.l0,
        "declared explained variance": card.explained_variance,
    }


def _arithmetic(sae: SparseAutoencoder) -> dict[str, Any]:
    lines: dict[str, Any] = {
        "features": sae.features,
        "width": sae.d_model,
        "activation": str(sae.activation),
    }
    if sae.k is not None:
        lines["active at a token"] = f"{sae.k}{', one per group' if sae.grouped else ''}"
    if sae.threshold is not None:
        low, high = (float(value) for value in sae.threshold.aminmax())
        lines["thresholds"] = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    norms = {
        "none": "as it is",
        "layer_norm": "layer norm",
        "constant_norm": "every token to length √width",
        "centred": "every token less its mean",
    }
    lines["input"] = norms[sae.input_norm] + (
        ", then a bias is subtracted" if sae.input_bias is not None else ""
    )
    return lines


def _costs(found: Dictionary) -> dict[str, Any]:
    from monitor.dictionary.digest import sampled
    from monitor.dictionary.storage.stored_autoencoder import StoredAutoencoder, readable_size

    sae = found.autoencoder
    matrices = 3 if sae.gate_bias is not None else 2
    whole, feature = 4 * matrices * sae.features * sae.d_model, 4 * matrices * sae.d_model
    lazy = isinstance(sae, StoredAutoencoder)
    watched = (
        f"{readable_size(feature)} per watched feature"
        if sae.separable
        else "all of it, also for one feature"
    )
    return {
        "files": ", ".join(f"{path.name} ({readable_size(path.stat().st_size)})" for path in found.files),
        "memory to watch": watched,
        "memory for all": readable_size(whole) + ("; stays in its files until needed" if lazy else ""),
        "statistics": f"{found.statistics.tokens:,} tokens"
        if found.statistics
        else f"none (would be in {found.path})",
        "digest": found.digest + (" (large: of samples)" if sampled(found.files) else ""),
    }


def _trained(found: Dictionary) -> dict[str, Any]:
    report = found.path / "training.json"
    if not report.is_file():
        return {}
    try:
        return dict(json.loads(report.read_text("utf-8"))["results"])
    except (ValueError, KeyError, TypeError):
        return {"training": f"not known: {report} is broken"}


def print_lines(lines: dict[str, Any]) -> None:
    """Names and values in two columns; what a dictionary does not say is "not stated"."""
    for name, value in lines.items():
        shown = "not stated" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
        line = f"{name.replace('_', ' '):<28} {printable(shown)}"
        stdout_console().print(line, soft_wrap=True, markup=False, highlight=False)
