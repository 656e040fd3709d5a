"""Edits that are compared, against plain float64."""

import pytest
import torch

from monitor.model.offline.edits import Clamped, Projected, Subtracted, ablated
from monitor.records import Clamp, ErrorTerm, Where
from tests.model.tap.test_error_term import edited
from tests.model.tiny import (
    KINDS,
    WIDTH,
    decode_all,
    dictionary,
    maxima,
    plain_clamp,
    plain_clamped,
)

CLAMPS = (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE), Clamp(41, 0.5))


class TestEdits:
    x = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(3))

    @pytest.mark.parametrize("kind", KINDS)
    def test_clamps_are_those_that_are_served(self, kind) -> None:
        sae, unit = dictionary(kind), maxima()
        found = Clamped(sae, unit, CLAMPS, torch.device("cpu"))(self.x, 4)
        torch.testing.assert_close(
            found, plain_clamp(sae, self.x, CLAMPS, unit).float(), rtol=1e-4, atol=1e-4
        )

    def test_without_error_term_from_the_second_position_on(self) -> None:
        sae, unit = dictionary(), maxima()
        drops = tuple(Clamp(c.feature, c.target, Where.EVERYWHERE, ErrorTerm.DROP) for c in CLAMPS)
        found = Clamped(sae, unit, drops, torch.device("cpu"))(self.x, 0)
        dropped = decode_all(sae, edited(sae, self.x, drops, unit), self.x).float()
        torch.testing.assert_close(found[:, 1:], dropped[:, 1:], rtol=1e-4, atol=1e-4)
        assert torch.equal(found[:, 0], self.x[:, 0])

    def test_a_direction_is_subtracted_from_all_but_the_first(self) -> None:
        direction = torch.ones(WIDTH)
        found = Subtracted(direction, 2.0)(self.x, 0)
        assert torch.equal(found[:, 0], self.x[:, 0])
        assert torch.equal(found[:, 1:], self.x[:, 1:] - 2)
        assert torch.equal(Subtracted(direction, 2.0)(self.x, 5), self.x - 2)

    def test_what_lies_along_a_direction_is_taken_away(self) -> None:
        direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(4))
        unit = direction / direction.norm()
        found = Projected(direction, 1.0)(self.x, 0)
        assert torch.equal(found[:, 0], self.x[:, 0])
        torch.testing.assert_close(found[:, 1:] @ unit, torch.zeros(2, 5), rtol=0, atol=1e-5)
        across = self.x[:, 1:] - (self.x[:, 1:] @ unit)[..., None] * unit
        torch.testing.assert_close(found[:, 1:], across, rtol=1e-4, atol=1e-5)
        mirrored = Projected(3 * direction, 2.0)(self.x, 5)
        torch.testing.assert_close(mirrored @ unit, -(self.x @ unit), rtol=1e-4, atol=1e-5)

    def test_ablation_is_a_target_of_zero(self) -> None:
        sae, unit = dictionary(), maxima()
        found = ablated(sae, unit, [3, 41], torch.device("cpu"))(self.x, 0)
        zero = (Clamp(3, 0.0), Clamp(41, 0.0))
        torch.testing.assert_close(
            found, plain_clamped(sae, self.x, zero, unit).float(), rtol=1e-4, atol=1e-4
        )
