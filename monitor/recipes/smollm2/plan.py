"""The numbers of the recipe: shares of the texts, and what the sweep compares."""

from __future__ import annotations

from dataclasses import dataclass

ANSWERS = "answers"
"""Name of what the model itself says, among the corpora."""

SHARES = {
    ANSWERS: 0.16,
    "instruct_open_models": 0.18,
    "instruct_gpteacher": 0.07,
    "hh_harmless": 0.03,
    "self_dialogue": 0.10,
    "schema_dialogue": 0.05,
    "gutenberg": 0.12,
    "python": 0.10,
    "peps": 0.03,
    "labelled/statements": 0.03,
    "labelled/power_seeking": 0.03,
    "labelled/deception": 0.015,
    "labelled/sycophancy": 0.015,
    "labelled/bias": 0.02,
    "labelled/dangerous_request": 0.015,
    "labelled/unsafe_code": 0.02,
    "labelled/scam": 0.015,
}
"""Share of each corpus in the training text. Sets that may only be measured on are not in it."""

CONTEXT = 256
"""Tokens in a row."""


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One dictionary of the sweep."""

    layer: int
    features: int
    k: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"layer{self.layer}-{self.features}-k{self.k}"


LAYERS = (9, 12, 15, 18, 21)
"""Layers around the middle of 30, whose residual streams are compared."""

PROBED = (3, 6, 9, 12, 15, 18, 21, 24, 27)
"""Layers at which a linear probe is tried."""

SWEEP = (
    *(SweepRun(layer, 8192, 32) for layer in LAYERS),
    SweepRun(15, 4096, 32),
    SweepRun(15, 16384, 32),
    SweepRun(15, 16384, 24),
    SweepRun(15, 16384, 48),
)
"""What is compared: layers at one width, then widths and sparsities at the middle layer."""

SWEEP_TOKENS, SWEEP_HELD_OUT = 2_000_000, 50_000
"""Tokens that each dictionary of the sweep learns from, and is measured on."""

SHIPPED = SweepRun(15, 16384, 32)
"""The dictionary that the pair ships: at the first of the layers where probes find most, as wide as fits into 48 MB."""
TOKENS, HELD_OUT = 20_000_000, 200_000
"""Tokens that it learns from, and is measured on."""
