import pytest

from monitor.dictionary.formats import layer_of


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blocks.12.hook_resid_post", 12),
        ("blocks.12.hook_resid_pre", 11),
        ("blocks.0.hook_resid_pre", None),
        ("blocks.3.hook_mlp_out", None),
        ("blocks.3.attn.hook_z", None),
        ("model.layers.7", 7),
        ("model.layers.7.output", 7),
        ("model.layers.7.self_attn.o_proj.input", None),
        ("transformer.h.5", 5),
        ("gpt_neox.layers.2", 2),
        (None, None),
    ],
)
def test_layer_of(name, layer):
    assert layer_of(name) == layer
