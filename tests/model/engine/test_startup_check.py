"""The check at the start, with engines that answer well, wrongly, in part, or not at all."""

import numpy as np
import pytest
import torch

from monitor.errors import ModelError, NotComputed
from monitor.model.engine.requests import Finished, Released
from monitor.model.engine.startup_check import rehearse
from monitor.records import Coverage, FinishReason, Phase, ScoredTokens
from tests.model.tiny import loaded_model, prompt

IDS = prompt(3)


class Engine:
    """Generates what `choose` says of the logits of a plain pass."""

    rows = 16

    def __init__(self, loaded, choose=None, last=None):
        self.loaded, self.choose, self.last = loaded, choose, last

    def submit(self, request, emit):
        if self.choose is None:
            return
        ids = list(request.prompt_ids)
        for _ in range(request.sampling.max_new_tokens):
            with torch.no_grad():
                ids.append(int(self.choose(self.loaded.model(torch.tensor([ids])).logits[0, -1])))
        count = len(ids)
        tokens = ScoredTokens(
            Phase.PROMPT, 0, tuple(ids), np.zeros(0, np.int64), np.zeros((count, 0), np.float32)
        )
        last = self.last or Finished(FinishReason.LENGTH, Coverage(count, count), count)
        emit([(request.request_id, Released("", tokens))])
        emit([(request.request_id, last)])


@pytest.fixture(scope="module")
def loaded():
    return loaded_model()


def rehearsed(loaded, engine, timeout=30.0):
    rehearse(engine, loaded, IDS, timeout)


def test_what_the_model_would_choose_passes(loaded):
    rehearsed(loaded, Engine(loaded, torch.argmax))


def test_what_it_would_not_choose_is_refused(loaded):
    with pytest.raises(ModelError, match="does not compute the same in the engine as in a plain pass"):
        rehearsed(loaded, Engine(loaded, torch.argmin))


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (Finished(FinishReason.ERROR, Coverage(3, 3), 0, error=NotComputed("no number")), "from: no number"),
        (Finished(FinishReason.LENGTH, Coverage(9, 8), 0), "from: tokens were not scored"),
    ],
)
def test_what_fails_or_is_not_scored_is_refused(loaded, last, said):
    with pytest.raises(ModelError, match=said):
        rehearsed(loaded, Engine(loaded, torch.argmax, last))


def test_who_does_not_answer_is_refused(loaded):
    with pytest.raises(ModelError, match=r"generated nothing within 0.01 s of starting; it cannot be served"):
        rehearsed(loaded, Engine(loaded), 0.01)
