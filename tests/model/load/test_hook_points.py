"""From the names of hooks to tensors of a model."""

import pytest
import torch

from monitor.dictionary.formats import DictionaryCard
from monitor.errors import ModelError
from monitor.model.load.hook_points import ATTN_OUT, MLP_OUT, Place, Side, parse_place, site_of
from monitor.model.offline.residuals import Harvester
from monitor.model.runtime import place_of
from tests.model.tiny import loaded_model

NAMES = {
    "blocks.3.hook_resid_post": Place(3),
    "blocks.3.hook_resid_pre": Place(2),
    "blocks.0.hook_resid_pre": Place(0, side=Side.INPUT),
    "blocks.3.hook_mlp_out": Place(3, MLP_OUT),
    "blocks.3.hook_attn_out": Place(3, ATTN_OUT),
    "model.layers.3": Place(3),
    "model.layers.3.output": Place(3),
    "model.layers.3.input": Place(2),
    "model.language_model.layers.3": Place(3),
    "gpt_neox.layers.3": Place(3),
    "transformer.h.3": Place(3),
    "layers.10": Place(10),
    "h.0.mlp": Place(0, "mlp"),
    "layers.5.mlp": Place(5, "mlp"),
    "model.layers.3.post_feedforward_layernorm.output": Place(3, "post_feedforward_layernorm"),
    "model.layers.3.self_attn.o_proj.input": Place(3, "self_attn.o_proj", Side.INPUT),
    "resid_post_layer_3": Place(3),
    "resid_pre_layer_3": Place(2),
    "mlp_out_layer_3": Place(3, MLP_OUT),
    "blocks.3.hook_out": Place(3),
    "blocks.3.hook_in": Place(2),
    "blocks.0.hook_in": Place(0, side=Side.INPUT),
    "blocks.3.attn.hook_out": Place(3, "attn"),
    "blocks.3.mlp.hook_out": Place(3, "mlp"),
    "blocks.3.ln1_post.hook_out": Place(3, ATTN_OUT),
    "blocks.3.ln2_post.hook_out": Place(3, MLP_OUT),
}


@pytest.mark.parametrize(("name", "place"), NAMES.items(), ids=list(NAMES))
def test_names(name: str, place: Place) -> None:
    assert parse_place(name) == place


@pytest.mark.parametrize(
    "name",
    [
        "blocks.3.hook_resid_mid",
        "blocks.3.ln2.hook_in",
        "blocks.3.ln2.hook_out",
        "blocks.3.attn.hook_in",
        "blocks.3.mlp.in.hook_out",
        "blocks.3.attn.hook_z",
        "blocks.3.ln1.hook_normalized",
        "blocks.3.hook_mlp_in",
        "hook_embed",
        "lm_head",
        "",
    ],
)
def test_places_that_cannot_be_tapped_are_refused_with_what_can(name: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be tapped here; what can: .*hook_resid_post"):
        parse_place(name)


@pytest.mark.parametrize("place", list(dict.fromkeys(NAMES.values())), ids=str)
def test_a_place_reads_back_from_its_name(place: Place) -> None:
    assert parse_place(str(place)) == place


class TestCard:
    def test_the_card_says_where(self) -> None:
        assert place_of(DictionaryCard(hook_name="blocks.3.hook_mlp_out"), None, 6) == Place(3, MLP_OUT)

    def test_a_layer_that_is_given_wins_and_the_point_stays(self) -> None:
        assert place_of(DictionaryCard(hook_name="blocks.3.hook_mlp_out"), 5, 6) == Place(5, MLP_OUT)

    def test_a_layer_without_a_name_and_neither(self) -> None:
        assert place_of(DictionaryCard(layer=4), None, 6) == Place(4)
        assert place_of(DictionaryCard(), None, 6) == Place(6)

    def test_a_name_that_cannot_be_tapped_is_never_replaced_by_a_guess(self) -> None:
        for layer in (None, 5):
            with pytest.raises(ModelError, match="resid_mid"):
                place_of(DictionaryCard(hook_name="blocks.3.hook_resid_mid"), layer, 6)

    def test_a_folder_that_is_no_name_of_a_hook_needs_a_layer(self) -> None:
        with pytest.raises(ModelError, match="give the layer with --layer"):
            place_of(DictionaryCard(hook_name="my-download"), None, 6)
        assert place_of(DictionaryCard(hook_name="my-download"), 5, 6) == Place(5)


class TestSites:
    ids = torch.tensor([[0, 5, 6, 7, 8]])

    def test_before_the_first_layer_is_the_embedding(self) -> None:
        loaded = loaded_model()
        found = Harvester(loaded, Place(0, side=Side.INPUT)).residuals(self.ids)
        assert torch.equal(found, loaded.model.get_input_embeddings()(self.ids))

    def test_a_replaced_input_changes_what_follows(self) -> None:
        harvester = Harvester(loaded_model(), Place(0, side=Side.INPUT))
        as_it_is = harvester.logits(self.ids)
        assert torch.equal(harvester.logits(self.ids, lambda x: x), as_it_is)
        assert not torch.allclose(harvester.logits(self.ids, torch.zeros_like), as_it_is)

    def test_a_replaced_contribution_changes_what_follows(self) -> None:
        for point in (MLP_OUT, ATTN_OUT):
            harvester = Harvester(loaded_model("gpt2"), Place(2, point))
            changed = harvester.logits(self.ids, torch.zeros_like)
            assert not torch.allclose(changed, harvester.logits(self.ids))

    @pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma2", "mixtral"])
    def test_modules_by_the_names_of_transformer_lens_3(self, kind: str) -> None:
        """`attn.hook_out` is what the module gives; `ln1_post.hook_out` is what is added, normed in some families."""
        loaded = loaded_model(kind)
        for module, normed in (("attn", "ln1_post"), ("mlp", "ln2_post")):
            raw, added = (
                Harvester(loaded, parse_place(f"blocks.2.{name}.hook_out")).residuals(self.ids)
                for name in (module, normed)
            )
            assert torch.equal(raw, added) == (kind != "gemma2")

    def test_what_a_model_does_not_have(self) -> None:
        layers = loaded_model().layers
        with pytest.raises(ModelError, match="layers 0 to 3"):
            site_of(layers, Place(4))
        with pytest.raises(ModelError, match=r"no module 'feed'; it has self_attn, mlp"):
            site_of(layers, Place(1, "feed"))
