"""A reader whose features are known, and a policy, examples and benign texts for it."""

import numpy as np
from scipy import sparse

from monitor.policy.files.examples import Example, Label
from monitor.policy.files.lock import DictionaryRef, ModelRef
from monitor.policy.fit import FitSettings, Inputs, TextReadings, TokenReadings
from monitor.policy.schema.policy import PolicyModel
from tests.policy.policy_files import DICTIONARY, MODEL

FEATURES = 60
CONCEPT = (4, 17, 33)
"""Features that are active on the concept; 50 and above are never active."""
CAUSAL = 21
WIDTH = 8


class Synthetic:
    """Reads texts of the form `LABEL NUMBER`: noise on all features, and the concept's on label `yes`."""

    maxima = np.where(np.arange(FEATURES) < 50, 2.0, 0.0)
    takes_turns = False

    def __init__(self, strength=1.0, leaning=0.5, longest=25):
        self.strength = strength
        self.leaning = leaning
        self.longest = longest

    def _one(self, text):
        kind, number = text.split()
        rng = np.random.default_rng([int(number), kind == "yes", kind == "look"])
        tokens = int(rng.integers(6, self.longest))
        rows = rng.exponential(0.2, (tokens, FEATURES)) * (rng.random((tokens, FEATURES)) < 0.1)
        rows[:, 50:] = 0
        if kind == "yes":
            hit = rng.random((tokens, len(CONCEPT))) < 0.5
            rows[:, CONCEPT] += hit * rng.uniform(0.3, 0.9, hit.shape) * self.strength
            rows[:, CAUSAL] += self.strength * (rng.random(tokens) < 0.5)
        return rows, rng.normal(0, 1, (tokens, WIDTH)) + self.leaning * (kind == "yes")

    def read(self, texts):
        rows, residuals = zip(*map(self._one, texts), strict=True)
        starts = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
        tokens = TokenReadings(sparse.csr_matrix(np.vstack(rows)), starts)
        residuals = np.concatenate(residuals).astype(np.float32)
        return TextReadings(tokens, residuals, {"residual_norm": np.linalg.norm(residuals, axis=1)})

    def attribution(self, texts):
        effect = np.full(FEATURES, -0.01)
        effect[[CAUSAL, 2]] = 0.5 if texts[0].startswith("yes") else 0.0
        return effect

    def reach(self, direction):
        return np.where(np.isin(np.arange(FEATURES), CONCEPT), 1.0, 0.0) * np.abs(direction).sum()

    def label(self, feature):
        return f"feature {feature}"


def examples(count=40):
    rows = [Example(f"yes {i}", Label.POSITIVE, str(i)) for i in range(count)]
    rows += [Example(f"no {i}", Label.NEGATIVE, str(i)) for i in range(count)]
    return rows + [Example(f"look {i}", Label.HARD_NEGATIVE, str(i)) for i in range(count)]


def policy(rules=None, **more):
    rule = {
        "name": "stated",
        "pooling": {"kind": "top_k_mean", "k": 3},
        "threshold": {"false_positive_rate": 0.02},
    }
    return PolicyModel.model_validate(
        {
            "apiVersion": "monitor/v1",
            "metadata": {"name": "p", "title": "P", "category": "c", "severity": "low", "description": "d"},
            "concept": {"examples": "p.examples.jsonl"},
            "rules": rules or [{**rule, "action": "suppress"}, {**rule, "name": "mean", "pooling": "mean"}],
            "suppress": {"target": -1.0},
            **more,
        }
    )


def inputs(reader, texts=150, aside=0):
    benign = [f"benign {i}" for i in range(texts)]
    read = reader.read(benign)
    model, dictionary = ModelRef(name="m", digest=MODEL), DictionaryRef(digest=DICTIONARY, features=FEATURES)
    if not aside:
        return Inputs(reader, model, dictionary, benign, read, read.tokens.density())
    further = [f"benign {i}" for i in range(5000, 5000 + aside)]
    more = {"aside": further, "aside_readings": reader.read(further)}
    return Inputs(reader, model, dictionary, benign, read, read.tokens.density(), **more)


QUICK = FitSettings(features=8, detector="features")
