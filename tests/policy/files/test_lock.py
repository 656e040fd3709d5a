"""The lock file: written, read back, and refused where its numbers are none."""

import numpy as np
import pytest
from pydantic import ValidationError

from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import (
    HEADER,
    LockedProbe,
    LockModel,
    as_written,
    lock_text,
    packed,
    probe_of,
    write_lock,
)
from tests.policy.policy_files import EXAMPLES, PAIR, lock_for, write_concept


def test_a_lock_survives_writing_and_reading(tmp_path):
    path, examples = write_concept(tmp_path)
    lock = lock_for(examples)
    write_lock(path, lock, PAIR)
    (source,) = read_folder(tmp_path, PAIR)
    assert source.lock == lock
    assert not list(tmp_path.rglob("*.partial"))


def stored(**changes):
    """A valid lock as plain data, with these entries instead."""
    return {**lock_for(EXAMPLES).model_dump(by_alias=True), **changes}


def test_numbers_have_five_digits_and_the_same_lock_the_same_text():
    assert as_written({"a": [1.23456789, 3], "b": (0.1 + 0.2), "c": "0.123456789", "d": None}) == {
        "a": [1.2346, 3],
        "b": 0.3,
        "c": "0.123456789",
        "d": None,
    }
    lock = lock_for(EXAMPLES)
    assert lock_text(lock) == lock_text(LockModel.model_validate(stored()))
    assert lock_text(lock).startswith(HEADER)
    assert EXAMPLES[0].text not in lock_text(lock), "no text of an example"


def test_a_probe_as_detector_needs_its_weights():
    with pytest.raises(ValidationError, match="`probe` as detector needs the section `probe:`"):
        LockModel.model_validate(stored(detector="probe", features=[]))
    given = stored(detector="probe", features=[], probe={"weights": [1.0]})
    assert LockModel.model_validate(given).probe.weights == [1.0]


def later(weights, **changes):
    rest = {"layer": 3, "bias": 0.5, "threshold": 2.0, "half_life": 4.0, "benign_rate": 0.01, "auroc": 0.9}
    return LockedProbe.model_validate({"weights": weights, **rest, **changes})


def test_later_probes_are_float32_in_base64():
    weights = np.array([1.5, -2.25, 3e-8], np.float32)
    probe = probe_of(later(packed(weights.astype(np.float64))))
    np.testing.assert_array_equal(probe.weights, weights)
    assert (probe.layer, probe.bias, probe.threshold, probe.half_life) == (3, 0.5, 2.0, 4.0)
    assert probe_of(None) is None


@pytest.mark.parametrize(
    "weights", [packed(np.array([np.nan], np.float32)), packed(np.array([1, np.inf], np.float32)), "AAAA", ""]
)
def test_later_probes_that_are_no_numbers(weights):
    with pytest.raises(ValidationError, match="not finite float32 numbers; run `policy fit` again"):
        later(weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"suppress": [{"index": 6, "target": 0.5, "maximum": 3.0, "attribution": 0.1, "ratio": 8.0}]},
        {"features": [{"index": 5, "weight": 1.0, "maximum": 0.0}]},
        {"examples": "sha256:0"},
        {"policy": "Greed"},
        {"comment": "x"},
    ],
)
def test_what_no_lock_holds(changes):
    with pytest.raises(ValidationError):
        LockModel.model_validate(stored(**changes))
