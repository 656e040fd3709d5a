"""The weights of a dictionary in training: how they start, what is kept at 1, and what they become at the end."""

import pytest
import torch

from monitor.dictionary.sae import Activation
from monitor.dictionary.training.network import START_NORM, START_THRESHOLD, Network
from monitor.dictionary.training.settings import Objective, TrainSettings

FEATURES, WIDTH = 24, 7


def network(objective, **changes):
    return Network(TrainSettings(FEATURES, 100_000, objective, k=5, **changes), WIDTH, torch.float64)


def moved(objective):
    """A network whose weights are no longer those it began with."""
    net = network(objective)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    net.threshold.fill_(0.4)
    return net


@pytest.mark.parametrize("objective", list(Objective))
def test_the_start(objective):
    net = network(objective)
    norm = 1.0 if objective is Objective.JUMPRELU else START_NORM
    torch.testing.assert_close(net.decoder.norm(dim=1), torch.full((FEATURES,), norm, dtype=torch.float64))
    assert torch.equal(net.decoder, net.encoder)
    assert net.encoder is not net.decoder
    assert torch.equal(network(objective).decoder, net.decoder), "a seed gives the same start"
    assert not torch.equal(network(objective, seed=1).decoder, net.decoder)
    assert ("log_threshold" in dict(net.named_parameters())) is (objective is Objective.JUMPRELU)


def test_the_mean_input_gives_no_activation_and_is_reconstructed():
    net = network(Objective.PAPER)
    mean = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)
    net.initialise(mean)
    torch.testing.assert_close(
        mean @ net.encoder.T + net.encoder_bias, torch.zeros(FEATURES, dtype=torch.float64)
    )
    assert torch.equal(net.decoder_bias, mean)


@pytest.mark.parametrize("objective", list(Objective))
def test_only_fixed_norms_are_scaled_back(objective):
    net = moved(objective)
    before = net.decoder.detach().clone()
    net.constrain()
    if objective is Objective.JUMPRELU:
        torch.testing.assert_close(net.decoder, before / before.norm(dim=1, keepdim=True))
    else:
        assert torch.equal(net.decoder, before)


def test_a_projected_gradient_changes_no_norm():
    net = network(Objective.JUMPRELU)
    net.project_gradient()  # nothing to do before the first gradient
    net.decoder.grad = torch.randn(
        FEATURES, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    across = net.decoder.grad - (net.decoder.grad * net.decoder).sum(1, keepdim=True) * net.decoder
    net.project_gradient()
    torch.testing.assert_close(net.decoder.grad, across.detach())
    torch.testing.assert_close(
        (net.decoder.grad * net.decoder).sum(1), torch.zeros(FEATURES, dtype=torch.float64)
    )
    free = network(Objective.BATCHTOPK)
    free.decoder.grad = torch.ones(FEATURES, WIDTH, dtype=torch.float64)
    free.project_gradient()
    assert bool((free.decoder.grad == 1).all())


def test_thresholds():
    assert network(Objective.PAPER).thresholds() is None
    assert network(Objective.JUMPRELU).thresholds().tolist() == pytest.approx([START_THRESHOLD] * FEATURES)
    net = moved(Objective.BATCHTOPK)
    torch.testing.assert_close(
        net.thresholds() * net.decoder.norm(dim=1), torch.full_like(net.encoder_bias, 0.4)
    )


@pytest.mark.parametrize("objective", list(Objective))
def test_what_it_becomes_reconstructs_the_same_from_unscaled_inputs(objective):
    net, scale = moved(objective), 0.25
    x = 3 * torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    norms = net.decoder.norm(dim=1)
    pre = (x * scale) @ net.encoder.T + net.encoder_bias
    acts = pre.relu()
    if (threshold := net.thresholds()) is not None:
        acts = acts * (pre > threshold)
    assert 0.05 < float((acts > 0).double().mean()) < 0.95, "the case tests too little"
    sae = net.folded(scale)
    assert sae.activation is (Activation.RELU if objective is Objective.PAPER else Activation.JUMPRELU)
    torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones_like(norms))
    torch.testing.assert_close(sae.encode(x), acts * norms / scale)
    torch.testing.assert_close(sae.reconstruct(x), (acts @ net.decoder + net.decoder_bias) / scale)
