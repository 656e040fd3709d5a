"""Rows of token ids, packed and stored."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from monitor.recipes.corpus import CorpusText
from monitor.recipes.tiny.shards import build_shards, have_shards, open_shards, pack


def test_hold_all_documents_and_begin_anew() -> None:
    documents = [[1, *range(10, 10 + n), 2] for n in (3, 5, 40, 7, 1, 9, 90, 4, 4, 11)]
    rows = pack(documents, 16)
    assert rows.dtype == np.uint16
    assert rows.shape[1] == 16
    assert (rows[:, 0] == 1).all()
    flat = rows.reshape(-1).tolist()
    assert all(n in flat for n in range(10, 60))


def test_long_documents_are_cut_into_pieces_that_begin_anew() -> None:
    document = [1, *range(10, 30), 2]
    rows = pack([document], 8)
    # 22 tokens: eight, and twice seven behind another beginning.
    assert sorted(rows.tolist()) == sorted([document[:8], [1, *document[8:15]], [1, *document[15:22]]])


def test_rests_that_are_too_short_are_dropped_and_a_part_of_a_row_is_none() -> None:
    assert pack([[1, 5, 2]], 16).shape == (0, 16)
    rows = pack([[1, *range(100, 115), 2]], 16)
    assert rows.shape == (1, 16)
    assert 2 not in rows


def test_what_is_stored_is_read_back_by_corpus_and_half(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    documents = {
        "a/b": [CorpusText(f"word {n} " * 9, "train") for n in range(20)],
        "c": [CorpusText("held out " * 30, "heldout")],
    }
    told: list[str] = []
    assert not have_shards(tmp_path)
    build_shards(tmp_path, documents, tokenizer, 16, 0, told.append)
    assert have_shards(tmp_path)
    train, held = open_shards(tmp_path, "train"), open_shards(tmp_path, "heldout")
    assert (set(train), set(held)) == ({"a/b"}, {"c"})
    assert train["a/b"].shape[1] == 16
    assert (train["a/b"][:, 0] == tokenizer.bos_token_id).all()
    assert not train["a/b"].flags.writeable
    assert told[0] == f"a/b: {len(train['a/b']) * 16:,} training tokens, 0 rows held out"
    again = tmp_path / "again"
    build_shards(again, documents, tokenizer, 16, 0, told.append)
    assert np.array_equal(open_shards(again, "train")["a/b"], train["a/b"])
