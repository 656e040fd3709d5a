"""What vLLM computes is held against a plain forward pass, and whatever differs is refused."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.errors import ModelError, MonitoringFailed
from monitor.model.engine.requests import Finished
from monitor.model.load.hook_points import Place
from monitor.model.runtime import LoadedPair
from monitor.records import Blocks, Coverage, Failure, FinishReason, Phase, TokenBlock
from monitor.vllm.reference import compare, reference_of
from tests.model.tiny import loaded_model, prompt

IDS = prompt(3)


@pytest.fixture(scope="module")
def wanted():
    return reference_of(LoadedPair(loaded_model(), None, Place(2)), IDS)


def engine(norms, *, first=None, coverage=None, error=None):
    """A submit function of an engine that reads these norms and generates this token."""

    def submit(request, emit):
        rows = np.asarray(norms, np.float32)[:, None]
        block = TokenBlock(Phase.PROMPT, 0, IDS, rows)
        request.observer.observe_batch(Blocks.of([(0, block)]))
        ids = IDS if first is None else (*IDS, first)
        ran = coverage or Coverage(len(IDS), len(IDS))
        emit([(request.request_id, Finished(FinishReason.LENGTH, ran, len(ids), error=error, ids=ids))])

    return submit


def test_the_same_is_accepted(wanted):
    compare(engine(wanted.norms * 1.005, first=int(wanted.logits.argmax())), wanted, None)
    compare(engine(wanted.norms), wanted, None)


@pytest.mark.parametrize("change", [lambda n: n * 1.05, lambda n: n[::-1], lambda n: n * np.nan])
def test_another_residual_stream_is_refused(wanted, change):
    with pytest.raises(ModelError, match="tapped layer"):
        compare(engine(change(wanted.norms)), wanted, None)


def test_another_token_is_refused(wanted):
    with pytest.raises(ModelError, match="plain pass"):
        compare(engine(wanted.norms, first=int(wanted.logits.argmin())), wanted, None)


def test_what_was_not_scored_is_refused(wanted):
    with pytest.raises(ModelError, match="cannot be scored"):
        compare(engine(wanted.norms, coverage=Coverage(5, 4)), wanted, None)
    failed = MonitoringFailed("withheld", Failure.TAP_MISSED)
    with pytest.raises(ModelError, match="withheld"):
        compare(engine(wanted.norms, error=failed), wanted, None)


def test_an_engine_that_says_nothing_is_refused(wanted):
    with pytest.raises(ModelError, match="within"):
        compare(lambda request, emit: None, wanted, None, timeout=0.01)


def test_half_precision_rounds_more(wanted):
    compare(engine(wanted.norms * 1.05), replace(wanted, most=0.1), None)
