"""What a card concludes from its numbers."""

import pytest

from monitor.policy.files.lock import Difference
from monitor.policy.fit.card import clearly_better


def gain(auroc=(0.0, -0.1, 0.1), recall=(0.0, -0.1, 0.1)):
    names = ("auroc", "auroc_low", "auroc_high", "recall", "recall_low", "recall_high")
    return Difference(**dict(zip(names, (*auroc, *recall), strict=True)))


@pytest.mark.parametrize(
    ("one", "better"),
    [
        (gain(), False),
        (gain(auroc=(0.1, 0.02, 0.2)), True),
        (gain(recall=(0.2, 0.01, 0.3)), True),
        (gain(recall=(0.2, 0.01, 0.3), auroc=(-0.1, -0.2, -0.01)), False),
    ],
)
def test_clearly_better_means_that_an_interval_excludes_zero(one, better):
    assert clearly_better(one) is better
