"""Policies as they apply to a pair."""

from dataclasses import replace
from pathlib import Path

import pytest

from monitor.errors import InputError, NotFound, PolicyError
from monitor.lab.policies import bound_elsewhere, load_set, lock_folder, named_policy, running_of
from monitor.policy.files.lock import write_lock
from monitor.policy.files.source import Running, read_source
from tests.policy.policy_files import DICTIONARY, EXAMPLES, MODEL, PINNED, lock_for, write_policy

RUNNING = Running(MODEL, DICTIONARY, 100, names=("org/model", "model"))


def test_a_pair_is_what_runs(opened):
    running = running_of(opened)
    assert (running.model, running.dictionary) == (opened.loaded.digest, opened.dictionary.digest)
    assert running.features == len(running.maxima) == opened.dictionary.autoencoder.features
    assert running.width == opened.loaded.d_model
    assert running.names == (opened.loaded.name, Path(opened.loaded.name).name)
    assert running.pair == opened.name == "tiny"
    assert running.flags == "--pair tiny"


def test_where_the_locks_of_a_pair_are_kept(tmp_path):
    made = "model-aaaaaaaa-bbbbbbbb"
    assert lock_folder(tmp_path, RUNNING) == made
    small = replace(RUNNING, pair="small")
    assert lock_folder(tmp_path, small) == "small"
    assert lock_folder(tmp_path, small, "asked") == "asked"
    write_lock(tmp_path / "greed.yaml", lock_for(EXAMPLES), "there")
    assert lock_folder(tmp_path, RUNNING) == lock_folder(tmp_path, small) == "there"
    assert lock_folder(tmp_path, replace(RUNNING, model="sha256:" + "9" * 64)) == "model-99999999-bbbbbbbb"
    with pytest.raises(InputError, match="locks/there holds locks of this model and dictionary"):
        lock_folder(tmp_path, RUNNING, "asked")
    assert lock_folder(tmp_path, RUNNING, "there") == "there"
    write_lock(tmp_path / "envy.yaml", lock_for(EXAMPLES), "small")
    assert lock_folder(tmp_path, small) == "small"
    with pytest.raises(InputError, match="cannot name a folder of locks"):
        lock_folder(tmp_path / "other", RUNNING, "../elsewhere")


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
