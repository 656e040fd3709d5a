"""Every family from checkpoints of its exact layout: encode, decode and a few features, against its own arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from monitor.dictionary.formats import FORMATS, read_dictionary
from monitor.dictionary.storage.stored_autoencoder import StoredAutoencoder
from monitor.model.tap.bank import FeatureBank
from tests.dictionary.formats import layouts, layouts_openmoss, layouts_pickled
from tests.dictionary.formats.layouts import FEATURES, WIDTH
from tests.dictionary.formats.learned import CLASSES, learned

MAKERS = {
    "gemma-scope": layouts.gemma_scope,
    "gemma-scope, compressed": lambda root: layouts.gemma_scope(root, compressed=True),
    "gemma-scope-2": layouts.gemma_scope_2,
    "gemma-scope-2, no config": lambda root: layouts.gemma_scope_2(root, config=False),
    "llama-scope": layouts_openmoss.llama_scope,
    "llama-scope, decoder norms": lambda root: layouts_openmoss.llama_scope(root, by_norm=True),
    "llama-scope, subtracted": lambda root: layouts_openmoss.llama_scope(root, subtract=True),
    "llama-scope-r1-distill": layouts_openmoss.llama_scope_r1,
    "llamascopium": layouts_openmoss.llamascopium,
    "llamascopium, topk": lambda root: layouts_openmoss.llamascopium(root, "topk"),
    "llamascopium, relu": lambda root: layouts_openmoss.llamascopium(root, "relu"),
    "sparsify": layouts.sparsify,
    "sparsify, groupmax": lambda root: layouts.sparsify(root, "groupmax"),
    "goodfire": layouts_pickled.goodfire,
    "qresearch": layouts_pickled.qresearch,
    "qwen-scope": layouts_pickled.qwen_scope,
    "openai": layouts_pickled.openai,
    "openai, relu": lambda root: layouts_pickled.openai(root, "ReLU"),
    **{f"dictionary-learning, {kind}": lambda root, kind=kind: learned(root, kind) for kind in CLASSES},
}
CHOSEN = [7, 0, 63, 20, 41]


def inputs(rows: int = 40) -> torch.Tensor:
    draw = torch.Generator().manual_seed(5)
    return 1.5 * torch.randn(rows, WIDTH, generator=draw) + 0.3


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """1e-5 of the largest number."""
    scale = expected.abs().max()
    torch.testing.assert_close(found.double() / scale, expected / scale, atol=1e-5, rtol=0)


@pytest.fixture(params=MAKERS)
def layout(request, tmp_path):
    return MAKERS[request.param](tmp_path)


def test_encode_and_decode(layout, tmp_path):
    found = read_dictionary(tmp_path / layout.source)
    acts, out = layout.reference(inputs().double())
    assert 0.02 < float((acts > 0).double().mean()) < 0.9, "the case tests too little"
    close(found.autoencoder.encode(inputs()), acts)
    close(found.autoencoder.reconstruct(inputs()), out)


def test_what_it_says_about_itself(layout, tmp_path):
    found = read_dictionary(tmp_path / layout.source)
    assert found.format == layout.family
    assert (found.card.hook_name, found.card.layer) == (layout.hook, layout.layer)
    assert found.card.model_name == layout.model
    assert found.autoencoder.k == layout.k
    assert (found.autoencoder.features, found.autoencoder.d_model) == (FEATURES, WIDTH)


def test_a_few_features_alone(layout, tmp_path):
    """As the tap computes them, from a dictionary in memory and from one that stays in its files."""
    acts, _ = layout.reference(inputs().double())
    for large in (1 << 40, 0):
        sae = read_dictionary(tmp_path / layout.source, large=large).autoencoder
        bank = FeatureBank(sae, torch.ones(FEATURES), CHOSEN, spare=1)
        read, _ = bank.activations(inputs(), len(CHOSEN))
        close(read, acts[:, CHOSEN])


def test_read_in_part(layout, tmp_path):
    """Rows read from the files are those of the whole, and their products but for rounding.

    Tensors that files hold in a way that allows it stay there.
    """
    whole = read_dictionary(tmp_path / layout.source).autoencoder
    part = read_dictionary(tmp_path / layout.source, large=0).autoencoder
    part.prefetch([*CHOSEN[:3], FEATURES, -1])
    for feature in [*CHOSEN, CHOSEN[0]]:
        for one, other in zip(part.row(feature), whole.row(feature), strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert torch.equal(one, other)
    if isinstance(part, StoredAutoencoder) and part.separable:
        chosen = torch.tensor(CHOSEN)
        assert_close(part.select(chosen).encode(inputs()), whole.select(chosen).encode(inputs()))
    assert_close(part.encode(inputs()), whole.encode(inputs()))


@pytest.mark.parametrize("name", [name for name in MAKERS if "compressed" not in name])
def test_every_family_can_stay_in_its_files(tmp_path, name):
    source = tmp_path / MAKERS[name](tmp_path).source
    assert isinstance(read_dictionary(source, large=0).autoencoder, StoredAutoencoder)


def test_every_format_is_tested(tmp_path):
    made = {make(tmp_path / str(number)).family for number, make in enumerate(MAKERS.values())}
    assert made == set(FORMATS) - {"saelens"}


def test_named_format_is_obeyed(tmp_path):
    layout = layouts_pickled.qresearch(tmp_path)
    renamed = tmp_path / "mine.pt"
    (tmp_path / layout.source).rename(renamed)
    found = read_dictionary(renamed, format="qresearch")
    close(found.autoencoder.encode(inputs()), layout.reference(inputs().double())[0])
    assert found.card.layer is None
