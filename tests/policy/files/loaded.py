"""Policies of a folder as a server loads them, and their problems."""

import pytest

from monitor.policy.files.loader import load_policies
from monitor.policy.files.yaml_document import PolicyProblems
from tests.policy.policy_files import DICTIONARY, MODEL


def load(folder, **more):
    return load_policies(
        folder, **{"dictionary_digest": DICTIONARY, "model_digest": MODEL, "features": 100, **more}
    )


def problems(folder, **more):
    with pytest.raises(PolicyProblems) as caught:
        load(folder, **more)
    return caught.value.problems
