import pytest

from monitor.errors import ConfigurationError
from tests.dictionary.training.planted_features import FEATURES, settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 0}, "features is 0"),
        ({"k": FEATURES + 1}, "more than"),
        ({"tokens": 10}, "less than one batch"),
        ({"buffer": 1}, "smaller than a batch"),
        ({"decay": 1.5}, "decay is 1.5"),
    ],
)
def test_settings_that_cannot_train_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        settings(**changes)
