"""Policies as they apply to a pair."""

from pathlib import Path

import pytest

from monitor.errors import NotFound, PolicyError
from monitor.lab.policies import bound_elsewhere, load_set, named_policy, running_of
from monitor.policy.files.source import Running, read_source
from tests.policy.policy_files import DICTIONARY, MODEL, PINNED, write_policy

RUNNING = Running(MODEL, DICTIONARY, 100, names=("org/model", "model"))


def test_a_pair_is_what_runs(opened):
    running = running_of(opened)
    assert (running.model, running.dictionary) == (opened.loaded.digest, opened.dictionary.digest)
    assert running.features == len(running.maxima) == opened.dictionary.autoencoder.features
    assert running.width == opened.loaded.d_model
    assert running.names == (opened.loaded.name, Path(opened.loaded.name).name)


def test_one_policy_by_its_name(tmp_path):
    write_policy(tmp_path, PINNED)
    source, policy = named_policy(tmp_path, "greed", RUNNING)
    assert (source.model.metadata.name, policy.name, policy.rules[0].threshold) == ("greed", "greed", 0.8)
    with pytest.raises(NotFound, match="no policy called envy; there are greed"):
        named_policy(tmp_path, "envy", RUNNING)


@pytest.mark.parametrize(
    ("models", "where"),
    [
        ("[model]", ""),
        ('["org/*"]', ""),
        ("[another, others]", "bound to another, others"),
        (None, ""),
    ],
)
def test_policies_that_are_bound_to_other_models(tmp_path, models, where):
    text = (
        PINNED
        if models is None
        else PINNED.replace("features:\n", f"match: {{models: {models}}}\nfeatures:\n", 1)
    )
    path = write_policy(tmp_path, text)
    assert bound_elsewhere(read_source(path, None), RUNNING) == where
    write_policy(tmp_path, PINNED.replace("name: greed", "name: envy"), "envy")
    loaded = {policy.name for policy in load_set(tmp_path, RUNNING).policies}
    assert loaded == ({"envy"} if where else {"envy", "greed"})
    if where:
        with pytest.raises(PolicyError, match=f"`greed` is {where}, not to this model; name its model"):
            named_policy(tmp_path, "greed", RUNNING)
