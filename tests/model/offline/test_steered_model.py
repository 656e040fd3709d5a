"""A model that reads and writes under an edit."""

import pytest
import torch

from monitor.model.offline.edits import Clamped
from monitor.model.offline.residuals import Harvester
from monitor.model.offline.steered_model import SteeredModel, padded, unchanged
from monitor.records import Clamp, Where
from tests.model.running import LAYER
from tests.model.tiny import (
    dictionary,
    loaded_model,
    maxima,
    prompt,
)

CLAMPS = (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE), Clamp(41, 0.5))


class TestSteered:
    def test_writing_with_a_cache_is_reading_without_one(self) -> None:
        loaded = loaded_model()
        harvester = Harvester(loaded, LAYER)
        edit = Clamped(dictionary(), maxima(), CLAMPS, torch.device("cpu"))
        heads = torch.tensor([prompt(n)[:1] + tuple(range(10 + n, 15 + n)) for n in range(3)])
        steered = SteeredModel(harvester, 3)
        written = steered.write(heads, edit, torch.zeros(3, 5), 0.0)
        text = torch.cat([heads, written], 1)
        ran = steered.read(text, edit)
        assert torch.equal(ran.logits.argmax(-1)[:, 5:-1], written)
        assert ran.later is not None
        assert not torch.equal(ran.edited, steered.read(text, unchanged).edited)
        assert not loaded.layers[LAYER]._forward_hooks

    def test_the_same_luck_gives_the_same_text_and_temperature_matters(self) -> None:
        steered = SteeredModel(Harvester(loaded_model(), LAYER))
        heads = torch.tensor([[0, 20, 30]] * 64)
        luck = torch.rand(64, 4, generator=torch.Generator().manual_seed(1))
        first, again = (steered.write(heads, unchanged, luck, 1.0) for _ in range(2))
        assert torch.equal(first, again)
        assert len({tuple(row) for row in first.tolist()}) > 1
        wanted = steered.read(heads[:1], unchanged).logits[0, -1].softmax(-1)
        many = torch.rand(4000, 1, generator=torch.Generator().manual_seed(2))
        drawn = steered.write(heads[:1].expand(4000, -1), unchanged, many, 1.0)[:, 0]
        share = torch.bincount(drawn, minlength=len(wanted)) / 4000
        assert (share - wanted).abs().max() < 0.03

    def test_padding(self) -> None:
        ids, real = padded([[1, 2, 3], [4]])
        assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
        assert real.tolist() == [[True, True, True], [True, False, False]]


def test_a_hook_goes_where_an_edit_fails() -> None:
    loaded = loaded_model()
    steered = SteeredModel(Harvester(loaded, LAYER), 3)

    def broken(_x, _first):
        raise ZeroDivisionError

    for run in (steered.read, lambda ids, edit: steered.write(ids, edit, torch.zeros(1, 1), 0.0)):
        with pytest.raises(ZeroDivisionError):
            run(torch.tensor([[0, 5, 6]]), broken)
    assert not any(layer._forward_hooks for layer in loaded.layers)


def test_an_edit_is_told_where_its_columns_stand() -> None:
    seen = []

    def noting(x, first):
        seen.append((first, x.shape[1]))
        return x

    SteeredModel(Harvester(loaded_model(), LAYER)).write(
        torch.tensor([[0, 5, 6]]), noting, torch.zeros(1, 3), 0.0
    )
    assert seen == [(0, 3), (3, 1), (4, 1)]
