"""Automatic labels as they are printed: how well they predict where features fire."""

from __future__ import annotations

from monitor.dictionary.cards.labels import LabelScore
from monitor.dictionary.labeller.dictionary_labels import LabelSummary
from monitor.dictionary.labeller.wordnet import wordnet_folder

NO_WORDNET = (
    "no label names a category such as cities, because WordNet is not on this machine (Debian: wordnet-base)"
)


def summary_text(found: LabelSummary) -> str:
    """How well the labels of a dictionary predict, beside labels of other features."""
    if not found.tried:
        return "labels: none could be tried, for lack of places that they were not made from"
    lacking = "" if wordnet_folder() else f"; {NO_WORDNET}"
    return (
        f"labels tried on places that they were not made from: AUROC {found.auroc:.3f} "
        f"(strong activations {found.strong:.3f}, labels of other features {found.shuffled:.3f}), balanced accuracy "
        f"{found.accuracy:.3f}, unclear {found.unclear:,} of {found.tried:,}{lacking}"
    )


def score_text(score: LabelScore | None) -> str:
    """How well one label predicts; an empty text where it was not tried."""
    if score is None:
        return ""
    strong = "" if score.strong is None else f" ({score.strong:.2f} where it fires strongly)"
    return (
        f"AUROC {score.auroc:.2f}{strong} on {score.firing + score.silent} other places; it holds at {score.right} of "
        f"{score.firing} where the feature fires and at {score.common:.2%} of all"
    )
