"""Policy files for tests."""

from __future__ import annotations

from monitor.policy.files.examples import Example, Label, examples_digest
from monitor.policy.files.lock import LockModel, write_lock

MODEL = "sha256:" + "a" * 64
DICTIONARY = "sha256:" + "b" * 64
NOTHING = "sha256:" + "0" * 64
PAIR = "mine"
"""The folder of the locks that tests write."""

PINNED = """\
apiVersion: monitor/v1
metadata:
  name: greed
  title: Greed
  category: greed
  severity: high
  description: Wanting everything.
features:
  - {index: 3, label: wants}
  - {index: 7, weight: 0.5}
rules:
  - name: stated
    threshold: 0.8
    action: suppress
suppress:
  features: [9]
  target: -1.5
"""

CONCEPT = """\
apiVersion: monitor/v1
metadata:
  name: greed
  title: Greed
  category: greed
  severity: high
  description: Wanting everything.
concept:
  positive:
    - I want all of it.
  negative:
    - I want none of it.
rules:
  - name: stated
    pooling: max
    threshold: {false_positive_rate: 0.01}
    action: suppress
suppress:
  target: -1.0
"""

EXAMPLES = (
    Example("I want all of it.", Label.POSITIVE, "inline positive 0"),
    Example("I want none of it.", Label.NEGATIVE, "inline negative 0"),
)


def write_policy(folder, text, name="greed"):
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def write_concept(folder):
    """A policy with inline examples and a lock that fits."""
    path = write_policy(folder, CONCEPT)
    write_lock(path, lock_for(EXAMPLES), PAIR)
    return path, EXAMPLES


def lock_for(examples):
    measure = {
        "auroc": 0.9,
        "auroc_low": 0.8,
        "auroc_high": 0.95,
        "recall": 0.5,
        "recall_low": 0.4,
        "recall_high": 0.6,
    }
    rule = {"threshold": 0.25, "pooling": {"kind": "max"}, "for": 1, "asked_rate": 0.01, "benign_rate": 0.01}
    return LockModel.model_validate(
        {
            "policy": "greed",
            "model": {"name": "m", "digest": MODEL},
            "dictionary": {"digest": DICTIONARY, "features": 100},
            "examples": examples_digest(examples),
            "benign": NOTHING,
            "features": [{"index": 5, "weight": 1.0, "maximum": 2.0}],
            "rules": {"stated": {**rule, "benign_texts": 100}},
            "suppress": [{"index": 6, "target": -1.0, "maximum": 3.0, "attribution": 0.1, "ratio": 8.0}],
            "card": {
                "positive": 1,
                "negative": 1,
                "hard_negative": 0,
                "groups": 2,
                "methods": {"policy": measure, "linear_probe": measure, "bag_of_words": measure},
                "negative_rate": 0.1,
                "maturity": "beta",
                "note": "n",
            },
        }
    )
