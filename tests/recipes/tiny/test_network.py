"""The forward and backward of training, against the library and autograd."""

import pytest
import torch
from transformers import LlamaForCausalLM

from monitor.recipes.tiny import network
from monitor.recipes.tiny.network import (
    TrainingForward,
    causal_attention,
    next_token_loss,
    rms_norm,
    rotary_tables,
)
from monitor.recipes.tiny.plan import PretrainingPlan


def test_agrees_with_the_library(plan: PretrainingPlan) -> None:
    config = plan.shape.config(1, 2, 0)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    ids = torch.randint(0, 400, (3, 33))
    forward = TrainingForward(config, 32, compute=torch.float32)
    weights = dict(model.named_parameters())
    loss = next_token_loss(
        forward(weights, ids[:, :-1]), weights["model.embed_tokens.weight"], ids[:, 1:], False
    )
    loss.backward()
    ours = {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}
    model.zero_grad()
    logits = model(ids[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    for name, weight in weights.items():
        torch.testing.assert_close(ours[name], weight.grad, atol=1e-5, rtol=1e-3)


def test_attention_and_its_gradients_are_those_of_a_plain_softmax() -> None:
    draw = torch.Generator().manual_seed(0)
    for length in (6, 7):
        inputs = [
            torch.randn(3, length, 4, generator=draw, dtype=torch.float64, requires_grad=True) for _ in "qkv"
        ]
        q, k, v = inputs
        scores = (q @ k.transpose(1, 2)) / 2 + torch.full((length, length), -torch.inf).triu(1)
        expected = scores.softmax(-1) @ v
        found = causal_attention(q, k, v)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        weight = torch.randn(found.shape, generator=draw, dtype=torch.float64)
        theirs = torch.autograd.grad((expected * weight).sum(), inputs)
        ours = torch.autograd.grad((found * weight).sum(), inputs)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_loss_in_chunks_is_the_mean_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_CHUNK", 5)
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 6, 8, generator=draw, requires_grad=True)
    head = torch.randn(20, 8, generator=draw, requires_grad=True)
    targets = torch.randint(0, 20, (2, 6), generator=draw)
    found = next_token_loss(hidden, head, targets, compiled=False)
    expected = torch.nn.functional.cross_entropy((hidden @ head.T).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(2 * found, (hidden, head))
    theirs = torch.autograd.grad(2 * expected, (hidden, head))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_normalising_and_rotating(plan: PretrainingPlan) -> None:
    x = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(
        rms_norm(x, torch.tensor([1.0, 2.0]), 0.0), torch.tensor([[3.0, 8.0]]) / 12.5**0.5
    )
    assert rms_norm(x.bfloat16(), torch.ones(2), 1e-6).dtype is torch.bfloat16
    cosines, sines = rotary_tables(plan.shape.config(1, 2, 0), 5)
    assert cosines.shape == sines.shape == (5, 16)
    torch.testing.assert_close(cosines.square() + sines.square(), torch.ones(5, 16))
    assert cosines[0].tolist() == [1.0] * 16
    torch.testing.assert_close(cosines[3, 0], torch.tensor(3.0).cos())
    torch.testing.assert_close(cosines[:, :8], cosines[:, 8:])
