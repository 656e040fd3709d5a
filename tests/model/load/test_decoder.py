"""Where the decoder layers of a model stand, whatever it calls them, and how long its texts may be."""

from types import SimpleNamespace

import pytest
from torch import nn

from monitor.errors import ModelError
from monitor.model.load.decoder import context_of, decoder_layers, text_config
from tests.model.tiny import CONFIGS, CONTEXT, LAYERS, loaded_model


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_layers_of_every_family(kind):
    loaded = loaded_model(kind)
    layers = decoder_layers(loaded.model)
    assert len(layers) == LAYERS
    assert layers is loaded.layers
    assert context_of(loaded.model, loaded.tokenizer) == CONTEXT


class Config:
    """The configuration of a text decoder."""

    is_encoder_decoder = False

    def __init__(self, layers=2, **more):
        self.num_hidden_layers = layers
        vars(self).update(more)

    def get_text_config(self):
        return self


class VisionConfig(Config):
    """The configuration of an encoder for images."""


class Part(nn.Module):
    """A model with its configuration and some lists of modules."""

    def __init__(self, config, **children):
        super().__init__()
        self.config = config
        for name, child in children.items():
            self.add_module(name, child)


def stack(count):
    return nn.ModuleList(nn.Linear(1, 1) for _ in range(count))


def test_an_encoder_for_images_is_passed_over_though_it_is_as_long():
    tower = Part(VisionConfig(2), layers=stack(2))
    text = Part(Config(2), layers=stack(2))
    model = Part(Config(2), tower=tower, text=text)
    assert decoder_layers(model) is text.layers
    assert text_config(model).num_hidden_layers == 2


def test_the_outermost_list_of_the_right_length_counts():
    inner = Part(Config(2), experts=stack(2))
    model = Part(Config(2), body=nn.Sequential(inner), layers=stack(2), others=stack(3))
    assert decoder_layers(model) is model.layers


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            Part(Config(3), layers=stack(2)),
            "Part has no list of 3 decoder layers; this kind of model cannot be tapped",
        ),
        (
            Part(Config(2, is_encoder_decoder=True), layers=stack(2)),
            "only decoder-only language models can be tapped",
        ),
    ],
)
def test_what_has_no_decoder_layers_is_refused(model, said):
    with pytest.raises(ModelError, match=said):
        decoder_layers(model)


@pytest.mark.parametrize(
    ("config", "limit", "context"),
    [
        ({"max_position_embeddings": 512}, 77, 512),
        ({"max_seq_len": 256}, 77, 256),
        ({"max_position_embeddings": 0, "seq_length": 128}, 77, 128),
        ({}, 77, 77),
        ({}, 10**30, 2048),
        ({"max_position_embeddings": "long"}, None, 2048),
    ],
)
def test_the_context_is_the_models_then_the_tokenizers(config, limit, context):
    assert (
        context_of(SimpleNamespace(config=Config(2, **config)), SimpleNamespace(model_max_length=limit))
        == context
    )
