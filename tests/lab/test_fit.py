import json

import pytest

from monitor.errors import InputError, NotFound, PolicyError
from monitor.lab.data_folder import open_data
from monitor.lab.fit import FittedPolicies, PolicyFit
from tests.policy.policy_files import write_concept


@pytest.fixture
def folder(tmp_path):
    """One policy, of the category greed, with benign texts."""
    (tmp_path / "policies").mkdir()
    write_concept(tmp_path / "policies")
    lines = "".join(json.dumps({"text": f"word {i}"}) + "\n" for i in range(150))
    (tmp_path / "policies" / "benign.jsonl").write_text(lines)
    return tmp_path / "policies"


@pytest.fixture
def labelled(tmp_path):
    path = tmp_path / "mine" / "greed" / "wants.csv"
    path.parent.mkdir(parents=True)
    path.write_text("text,label\n" + "".join(f"I want it {i},{i % 2}\n" for i in range(200)))
    return tmp_path / "mine"


def test_extra_rows_are_read_whole_unless_a_share_is_asked_for(folder, labelled):
    whole = PolicyFit(folder, extra=open_data(labelled))
    (source,) = whole.sources
    assert len(whole.extra_rows(source).texts) == 200
    half = PolicyFit(folder, extra=open_data(labelled, train_fraction=0.5))
    taught = half.extra_rows(source)
    assert 70 < len(taught.texts) < 130
    measured = half.extra.held_out(half.extra.sources[0], 1000)
    assert not {row.text for row in measured} & set(taught.texts)
    assert len(measured) + len(taught.texts) == 200
    assert PolicyFit(folder).extra_rows(source) is None


def test_what_cannot_be_fitted_is_said(folder, labelled):
    with pytest.raises(NotFound, match="no policy called envy; there are greed"):
        PolicyFit(folder, only=["envy"])
    (folder / "benign.jsonl").unlink()
    with pytest.raises(InputError, match="0 benign texts cannot set a threshold"):
        PolicyFit(folder, extra=open_data(labelled))


def test_failures_are_told_after_the_rest_was_written():
    FittedPolicies(()).check()
    with pytest.raises(PolicyError, match="1 policy could not be fitted:\na: too few"):
        FittedPolicies((), ("a: too few",)).check()
