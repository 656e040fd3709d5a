"""A measurement of cost: what it refuses before a model is loaded, and which texts it is put to."""

import dataclasses
from pathlib import Path

import pytest

from monitor.errors import InputError, NotFound, PolicyError
from monitor.lab.cost.study import CostSizes, CostStudy, suppressing
from tests.policy.policy_files import PINNED, write_policy

SIZES = CostSizes(prompts=20, head=3, new=4, positives=20, benign=20, temperature=0.0, seed=0)


@pytest.fixture
def study(tmp_path):
    write_policy(tmp_path, PINNED)
    quiet = (
        PINNED.split("suppress:")[0]
        .replace("action: suppress", "action: alert")
        .replace("name: greed", "name: quiet")
    )
    write_policy(tmp_path, quiet, "quiet")
    return CostStudy(tmp_path, "greed", (-1.0, 0.0), SIZES, 0.02)


def test_what_can_be_measured_is_not_refused(study):
    study.check()


def test_policies_that_suppress_are_found(study, tmp_path):
    assert suppressing(study.folder) == ["greed"]
    (tmp_path / "none").mkdir()
    write_policy(tmp_path / "none", (tmp_path / "quiet.yaml").read_text(), "quiet")
    with pytest.raises(PolicyError, match="there is nothing to measure"):
        suppressing(tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"targets": (-1.0, 0.5)}, InputError, "write targets of 0 and below"),
        ({"minimal_pairs": Path("nowhere")}, InputError, "no file of minimal pairs can be read there"),
        ({"name": "envy"}, NotFound, "no policy called envy; there are greed, quiet"),
        ({"name": "quiet"}, PolicyError, "`quiet` has no `suppress:` section; there is nothing to measure"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_work(study, changes, error, said):
    with pytest.raises(error, match=said):
        dataclasses.replace(study, **changes).check()
