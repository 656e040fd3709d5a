from __future__ import annotations

import pytest

from tests.cli.features.described import described
from tests.cli.small_pair import write_small_pair


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return write_small_pair(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    made = write_small_pair(tmp_path_factory.mktemp("described"))
    described(*made.options, "--data", made.corpus, "--tokens", "6000", "--length", "64")
    return made
