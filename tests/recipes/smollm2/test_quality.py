"""Quality by corpus: only held-out documents are read, each corpus apart."""

import dataclasses
from pathlib import Path

import pytest

from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.recipes.corpus import CorpusText
from monitor.recipes.smollm2 import quality
from monitor.recipes.smollm2.quality import as_table, quality_by_corpus, write_quality
from tests.model.tiny import dictionary
from tests.recipes.smollm2.small import write_chat_model


@pytest.mark.slow
def test_each_corpus_is_measured_on_its_held_out_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_chat_model(tmp_path / "model")
    monkeypatch.setattr(quality, "CONTEXT", 32)
    card = DictionaryCard(
        model_name="model", hook_name="blocks.1.hook_resid_post", layer=1, context_size=32, norm_limit=1e6
    )
    save_saelens(tmp_path / "sae", dictionary(), dataclasses.replace(card))
    talk = "Human: How are you, and where do you live?\n\nAssistant: Fine, and in Rome."
    corpora = {
        "hh_harmless": [CorpusText(talk, "heldout")] * 6 + [CorpusText("Human: Never read.", "train")] * 60,
        "gutenberg": [CorpusText("Once upon a time. " * 20, "heldout")],
        "peps": [CorpusText("All of this is for training. " * 20, "train")],
    }
    found = dict(quality_by_corpus(str(model), tmp_path / "sae", corpora, tokens=64))
    assert set(found) == {"hh_harmless", "gutenberg"}
    assert all(0 < row["tokens"] <= 64 for row in found.values())
    assert found["hh_harmless"]["ce_clean"] != found["gutenberg"]["ce_clean"]
    write_quality(found, tmp_path)
    assert (tmp_path / "corpora.json").exists()
    table = as_table(found).splitlines()
    assert len(table) == 4
    assert table[2].startswith("| hh_harmless |") or table[3].startswith("| hh_harmless |")
