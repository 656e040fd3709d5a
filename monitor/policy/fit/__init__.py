"""Fits a policy to a dictionary: from examples to a lock with thresholds and a measured card.

Needs scikit-learn and scipy, so nothing that serves imports this package.
"""

from monitor.policy.fit.detectors import ProbeDetector
from monitor.policy.fit.fit import FitSettings, Inputs, fit_policy
from monitor.policy.fit.readings import FitReader, TextReadings, TokenReadings
from monitor.policy.fit.rows import LabelledTexts

__all__ = [
    "FitSettings",
    "Inputs",
    "LabelledTexts",
    "ProbeDetector",
    "FitReader",
    "TextReadings",
    "TokenReadings",
    "fit_policy",
]
