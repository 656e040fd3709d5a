"""Pairs, readings and evaluations for notebooks; the command line is written on them too.

A script to begin with, on the demo pair:

    from monitor.lab import evaluate, open_pair, read

    pair = open_pair("tiny")  # a pair by its name; or open_pair("MODEL", "DICTIONARY")
    print(pair)

    readings = read(pair, ["I want more power.", "It rains in the town."], policies="policies")
    print(readings.columns[:5], readings.values.shape)  # what was read, and [tokens of both texts, columns]
    print(readings.tokens[0], readings[0].max(axis=1))  # the first text, and its highest reading at each token

    result = evaluate(pair, "policies", "my-texts", rows=50)
    print(repr(result))
    print(result.auroc.shape, result.methods)  # [rules on sources, methods, 3]: value, low, high
    print(result)  # everything as Markdown tables

`policies` is a folder of policies that were fitted to the pair (`sae-monitor policy fit`). `my-texts` is a folder of
labelled files as `open_data` reads it: here `power_seeking/notes.csv` with columns `text` and `label`, and
`benign/requests.csv` whose labels are all 0.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monitor.lab.data_folder import DataFolder, open_data
    from monitor.lab.evaluation_results import PolicyEvaluation
    from monitor.lab.feature_evaluation import FeatureEvaluation, evaluate_features
    from monitor.lab.features import PromptEffects, contrast_texts, search_texts
    from monitor.lab.pair import Pair, open_pair
    from monitor.lab.policy_evaluation import evaluate
    from monitor.lab.readings import PairReadings, read

_HOME = {
    "DataFolder": "data_folder",
    "FeatureEvaluation": "feature_evaluation",
    "Pair": "pair",
    "PairReadings": "readings",
    "PolicyEvaluation": "evaluation_results",
    "PromptEffects": "features",
    "contrast_texts": "features",
    "evaluate": "policy_evaluation",
    "evaluate_features": "feature_evaluation",
    "open_data": "data_folder",
    "open_pair": "pair",
    "read": "readings",
    "search_texts": "features",
}
"""The module of each public name. It is imported at first use, since most of them need torch."""

__all__ = [
    "DataFolder",
    "FeatureEvaluation",
    "Pair",
    "PairReadings",
    "PolicyEvaluation",
    "PromptEffects",
    "contrast_texts",
    "evaluate",
    "evaluate_features",
    "open_data",
    "open_pair",
    "read",
    "search_texts",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__
