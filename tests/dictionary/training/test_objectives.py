"""Hand-written gradients against autograd in float64, for every objective."""

import pytest
import torch

from monitor.dictionary.training import dead_features, objectives
from monitor.dictionary.training.network import Network
from monitor.dictionary.training.settings import Objective, TrainSettings

WIDTH, FEATURES, TOKENS = 16, 48, 64


class Step(torch.autograd.Function):
    """1[p > θ] with the rectangle's pseudo-derivative for θ."""

    @staticmethod
    def forward(ctx, pre, threshold, width):
        ctx.save_for_backward(pre, threshold)
        ctx.width = width
        return (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx, grad):
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.width / 2).to(pre)
        return None, -(near / ctx.width * grad).sum(0), None


class Jump(torch.autograd.Function):
    """p·1[p > θ] likewise."""

    @staticmethod
    def forward(ctx, pre, threshold, width):
        ctx.save_for_backward(pre, threshold)
        ctx.width = width
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx, grad):
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.width / 2).to(pre)
        return (pre > threshold) * grad, -(threshold * near / ctx.width * grad).sum(0), None


def setting(objective, **changes):
    return TrainSettings(
        FEATURES, 100 * TOKENS, objective, k=5, batch=TOKENS, buffer=TOKENS, precision="float64", **changes
    ).resolved(WIDTH)


def network(settings):
    random = torch.Generator().manual_seed(5)
    net = Network(settings, WIDTH, torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
    return net


def batch():
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def reference(net, x, settings, sparsity, k):
    """The objective as its paper writes it, dense and differentiable."""
    pre = x @ net.encoder.T + net.encoder_bias
    if settings.objective is Objective.PAPER:
        a = pre.relu()
        penalty = sparsity * (a * net.decoder.norm(dim=1)).sum(1).mean()
    elif settings.objective is Objective.JUMPRELU:
        threshold, width = net.log_threshold.exp(), settings.bandwidth * WIDTH**0.5 / 16
        a = Jump.apply(pre, threshold, width)
        penalty = sparsity * Step.apply(pre, threshold, width).sum(1).mean()
    else:
        rank = pre * net.decoder.norm(dim=1)
        limit = rank.flatten().topk(k * TOKENS).values[-1]
        a, penalty = pre.relu() * (rank >= limit), 0.0
    error = a @ net.decoder + net.decoder_bias - x
    return error.square().sum(1).mean() + penalty, a


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("dense", [True, False])
def test_gradients(objective, dense, monkeypatch):
    monkeypatch.setattr("monitor.dictionary.training.sparsity_pattern.DENSE_ABOVE", 0.0 if dense else 1.0)
    settings = setting(objective, bandwidth=2.0)
    net, x = network(settings), batch()
    outcome = objectives.loss_and_gradients(net, x, settings, sparsity=0.7)
    loss, a = reference(net, x, settings, 0.7, 5)
    loss.backward()
    torch.testing.assert_close(outcome.loss, loss.detach())
    torch.testing.assert_close(outcome.l0, (a > 0).sum(1).double().mean().to(outcome.l0))
    assert torch.equal(outcome.fired, (a > 0).any(0))
    assert outcome.gradients.keys() == dict(net.named_parameters()).keys()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(outcome.gradients[name], parameter.grad, msg=lambda m, n=name: f"{n}: {m}")
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("objective", list(Objective))
def test_low_precision_scan_finds_the_same_places(objective):
    settings = setting(objective)
    coarse = TrainSettings(FEATURES, 100 * TOKENS, objective, k=5, batch=TOKENS, buffer=TOKENS).resolved(
        WIDTH
    )
    net, x = network(settings), batch()
    other = Network(coarse, WIDTH)
    other.load_state_dict(net.state_dict())
    exact = objectives.loss_and_gradients(net, x, settings, 0.7)
    fast = objectives.loss_and_gradients(other, x.float(), coarse, 0.7)
    torch.testing.assert_close(fast.l0.double(), exact.l0.double(), rtol=0.01, atol=0.02)
    torch.testing.assert_close(fast.loss.double(), exact.loss, rtol=0.01, atol=0)
    for name, gradient in exact.gradients.items():
        distance = (fast.gradients[name].double() - gradient).norm() / gradient.norm().clamp_min(1e-9)
        assert distance < 0.05, (name, float(distance))


def test_batchtopk_keeps_exactly_k_and_follows_its_threshold():
    settings = setting(Objective.BATCHTOPK)
    net, x = network(settings), batch()
    for _ in range(3):
        outcome = objectives.loss_and_gradients(net, x, settings, 0)
        assert float(outcome.l0) == 5
    ranks = (x @ net.encoder.T + net.encoder_bias) * net.decoder.norm(dim=1)
    values = ranks.flatten().topk(5 * TOKENS).values
    torch.testing.assert_close(net.threshold, values[-1].detach())
    net.threshold.fill_(100.0)  # a guess that is far too high must not lose pattern
    assert float(objectives.loss_and_gradients(net, x, settings, 0).l0) == 5


def test_auxiliary_gradients(monkeypatch):
    monkeypatch.setattr(dead_features, "ROWS", 1)
    settings = setting(Objective.BATCHTOPK)
    net, x = network(settings), batch()
    error = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    gone = torch.zeros(FEATURES, dtype=torch.bool)
    gone[[3, 17, 30, 41]] = True
    found = dead_features.auxiliary_gradients(net, x, error, gone, seed=0)
    a = (x @ net.encoder[gone].T + net.encoder_bias[gone]).relu()
    left = (a @ net.decoder[gone] + error).square().sum(1).mean()
    (left * WIDTH / 32 / error.square().sum(1).mean()).backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, getattr(net, name).grad)
        assert gradient[~gone].abs().max() == 0
    assert dead_features.auxiliary_gradients(net, x, error, torch.zeros_like(gone), 0) == {}
