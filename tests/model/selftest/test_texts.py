import hashlib
from dataclasses import replace

import pytest

from monitor.model.selftest.texts import FILE, load_texts, texts_for
from tests.model.tiny import loaded_model


@pytest.fixture(scope="module")
def loaded():
    return loaded_model()


def test_the_digest_is_that_of_the_file():
    assert load_texts()[1] == f"sha256:{hashlib.sha256(FILE.read_bytes()).hexdigest()}"


def test_texts_differ_and_none_is_empty():
    texts, _ = load_texts()
    assert len(set(texts)) == len(texts) > 30
    assert all(text.strip() for text in texts)


def test_several_alphabets_are_in_them():
    """A dictionary is measured on what a model is asked in."""
    written = set("".join(load_texts()[0]))
    assert {"a", "7", "{"} <= written
    assert any("\u0400" <= letter <= "\u04ff" for letter in written)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in written)


def test_each_text_is_read_as_far_as_the_context_goes(loaded):
    short, long = texts_for(replace(loaded, context=16)), texts_for(replace(loaded, context=100_000))
    texts, digest = load_texts()
    for text, ids in zip(texts, long.ids, strict=True):
        assert ids == (0, *loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert [len(ids) for ids in short.ids] == [min(len(ids), 16) for ids in long.ids]
    assert short.digest == long.digest == digest


def test_bos_is_the_token_that_every_text_begins_with(loaded):
    found = texts_for(loaded)
    assert found.bos == loaded.tokenizer.bos_token_id
    assert {ids[0] for ids in found.ids} == {found.bos}
