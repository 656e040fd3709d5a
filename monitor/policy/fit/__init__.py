"""Fitting a policy to a dictionary: examples in, a lock with numbers and a measured card out.

Knows statistics on arrays of readings. Does not know models: a `Reader` is handed in. Needs scikit-learn, so
nothing that serves imports this package.
"""

from monitor.policy.fit.detectors import Probe
from monitor.policy.fit.fit import FitSettings, Inputs, fit_policy
from monitor.policy.fit.readings import Reader, TextReadings, TokenReadings
from monitor.policy.fit.rows import LabelledTexts

__all__ = [
    "FitSettings",
    "Inputs",
    "LabelledTexts",
    "Probe",
    "Reader",
    "TextReadings",
    "TokenReadings",
    "fit_policy",
]
