"""Probes as they are written: weights in place or in a file, and a digest for the file."""

import pytest

from monitor.policy.schema.probe import MOST_INLINE, ProbeModel
from tests.policy.schema.refusals import kinds, texts

DIGEST = "sha256:" + "0" * 64


def test_weights_in_place_or_in_a_file():
    probe = ProbeModel.model_validate({"weights": [0.5, -1.0]})
    assert (probe.weights, probe.bias, probe.scale) == ([0.5, -1.0], 0.0, 1.0)
    probe = ProbeModel.model_validate({"weights_file": "a.safetensors", "digest": DIGEST, "scale": 2.5})
    assert (probe.weights_file, probe.scale) == ("a.safetensors", 2.5)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({}, [([], "write either `weights:` or `weights_file:`; found neither")]),
        (
            {"weights": [1.0], "weights_file": "a.safetensors"},
            [([], "write either `weights:` or `weights_file:`; found both")],
        ),
        (
            {"weights_file": "a.safetensors"},
            [(["digest"], "`weights_file` and `digest` (of its bytes) go together")],
        ),
        (
            {"weights": [1.0], "digest": DIGEST},
            [(["digest"], "`weights_file` and `digest` (of its bytes) go together")],
        ),
    ],
)
def test_mistakes_between_fields(data, found):
    assert texts(ProbeModel, data) == found


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"weights": []}, "too_short"),
        ({"weights": [0.0] * (MOST_INLINE + 1)}, "too_long"),
        ({"weights": [float("nan")]}, "finite_number"),
        ({"weights": [1.0], "scale": 0}, "greater_than"),
        ({"weights_file": "../a.safetensors", "digest": DIGEST}, "string_pattern_mismatch"),
        ({"weights_file": "a.pt", "digest": DIGEST}, "string_pattern_mismatch"),
    ],
)
def test_mistakes_in_fields(data, kind):
    assert kind in kinds(ProbeModel, data)
