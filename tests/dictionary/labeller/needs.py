"""What tests of labels need on the machine."""

import pytest

from monitor.dictionary.labeller.wordnet import wordnet_folder

needs_wordnet = pytest.mark.skipif(
    wordnet_folder() is None, reason="WordNet is not installed (Debian: wordnet-base)"
)
