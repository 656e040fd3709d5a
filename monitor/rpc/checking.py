"""The self-test at start: run, logged, and the reason not to start where it fails.

Knows when to refuse. Does not know how the test measures or what causes it considers.
"""

from __future__ import annotations

import structlog

from monitor.errors import SelfTestFailed
from monitor.model.runtime import Parts
from monitor.model.selftest.expected import Source
from monitor.model.selftest.health import DictionaryHealth, dictionary_health
from monitor.model.selftest.run import self_test

_log = structlog.get_logger(__name__)

_VERIFY = (
    "run `sae-monitor dictionary verify` once with this model and dictionary, and look at what it measures"
)


def checked(parts: Parts, *, skip: bool) -> DictionaryHealth:
    """The dictionary's health. SelfTestFailed where model and dictionary do not fit each other."""
    if skip:
        _log.warning(
            "self-test skipped",
            consequence="nobody has checked that this dictionary reads this model at the right place",
        )
        return dictionary_health(parts, None)
    test = self_test(parts)
    if not test.passed:
        raise SelfTestFailed(
            f"the self-test failed: {test.explained()}\n`sae-monitor dictionary verify` shows all of it; "
            "`sae-monitor serve --skip-self-test` starts without it (elsewhere: SAE_MONITOR_SKIP_SELF_TEST=1)"
        )
    found = {
        "l0": round(test.measured.l0, 1),
        "explained_variance": round(test.measured.explained_variance, 3),
    }
    if test.expected.source is Source.NONE:
        _log.warning("self-test without expected values", **found, do=_VERIFY)
    elif test.expected.source is not Source.RECORDED:
        _log.info("self-test passed, within wide bounds", **found, against=test.source, do=_VERIFY)
    else:
        _log.info("self-test passed", **found)
    return dictionary_health(parts, test)
