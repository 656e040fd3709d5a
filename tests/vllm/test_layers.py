"""Decoder layers are found by structure, and the tap stands behind the right one."""

import pytest
import torch
from torch import nn

from monitor.errors import ModelError
from monitor.vllm import layers
from monitor.vllm.layers import decoder_layers_of, install, stream_of
from monitor.vllm.operator import Seat


class Part(nn.Module):
    def forward(self, x):
        return x, x


class PPMissingLayer(nn.Identity):
    pass


def model(**lists):
    made = nn.Module()
    for path, found in lists.items():
        parent = made
        *above, last = path.split("__")
        for name in above:
            if not hasattr(parent, name):
                parent.add_module(name, nn.Module())
            parent = getattr(parent, name)
        parent.add_module(last, nn.ModuleList(found))
    return made


def test_the_outermost_list_of_the_right_length():
    made = model(model__layers=[Part() for _ in range(4)], model__layers__0__experts=[])
    made.model.layers[1].add_module("experts", nn.ModuleList([Part() for _ in range(4)]))
    assert decoder_layers_of(made, 4) is made.model.layers


def test_encoders_for_images_are_passed_over():
    made = model(
        visual__blocks=[Part() for _ in range(4)], language_model__model__layers=[Part() for _ in range(4)]
    )
    assert decoder_layers_of(made, 4) is made.language_model.model.layers


def test_no_list_and_two_lists_are_refused():
    with pytest.raises(ModelError, match="no list of 4"):
        decoder_layers_of(model(model__layers=[Part()]), 4)
    with pytest.raises(ModelError, match="several lists"):
        decoder_layers_of(model(one=[Part() for _ in range(4)], two=[Part() for _ in range(4)]), 4)


def test_the_tap_is_called_behind_its_layer_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(layers, "call_tap", lambda *args: calls.append(args))
    made = model(model__layers=[Part() for _ in range(4)])
    seat = Seat(object(), 2, None, (3,))
    install(made, 4, seat)
    x = torch.ones(2, 3)
    for layer in made.model.layers:
        layer(x)
    assert [call[3] for call in calls] == [2, 3]
    assert calls[0][0] is x
    assert calls[0][1] is x


def test_a_layer_of_another_rank_is_refused():
    made = model(model__layers=[Part(), Part(), PPMissingLayer(), Part()])
    with pytest.raises(ModelError, match="pipeline"):
        install(made, 4, Seat(object(), 2))


def test_what_a_layer_may_return():
    x = torch.ones(2, 3)
    assert stream_of(x) == (x, None)
    assert stream_of((x, x)) == (x, x)
    for wrong in ((x,), (x, None), (x, x, x), None):
        with pytest.raises(ModelError, match="cannot be tapped"):
            stream_of(wrong)
