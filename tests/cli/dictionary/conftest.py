"""The small pairs that commands about features read are those that `dictionary describe` describes."""

from tests.cli.features.conftest import bare as bare
from tests.cli.features.conftest import pair as pair
