"""The training text: what is held out, and what is left out."""

import json
import lzma
from pathlib import Path

import pytest

from monitor.errors import InputError
from monitor.lab.texts import read_labelled
from monitor.recipes.corpus import CorpusText, corpora

Documents = dict[str, list[CorpusText]]


def test_holds_out_and_leaves_out_what_it_must(all_documents: Documents) -> None:
    assert {d.split for d in all_documents["wikitext2_heldout"]} == {"heldout"}
    assert {d.split for d in all_documents["talks"]} == {"train", "heldout"}
    assert "labelled/benign" not in all_documents
    assert not any("SKIPPED" in d.text for d in all_documents["python"])


def test_no_training_text_is_also_held_out(all_documents: Documents) -> None:
    for name in ("labelled/statements", "labelled/dangerous_request"):
        texts = {
            half: {d.text for d in all_documents[name] if d.split == half} for half in ("train", "heldout")
        }
        assert texts["train"]
        assert texts["heldout"]
        assert texts["train"].isdisjoint(texts["heldout"])


def test_the_same_text_in_both_halves_is_not_trained_on(tmp_path: Path, data: Path, library: Path) -> None:
    import json
    import shutil

    shutil.copytree(data, tmp_path / "data")
    rows = [{"text": "Shared!", "label": 1, "kind": "prompt", "group": str(n)} for n in range(8)]
    path = tmp_path / "data/labelled/dangerous_request/pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = corpora(tmp_path / "data", library)["labelled/dangerous_request"]
    assert {d.split for d in found} == {"heldout"}


def test_is_read_the_same_twice(data: Path, library: Path, all_documents: Documents) -> None:
    assert corpora(data, library) == all_documents


def test_an_empty_folder_and_a_bad_row_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="point --data"):
        corpora(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "1", "kind": "k", "group": "g"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:1: `label` is '1'; write 1 or 0"):
        read_labelled(tmp_path / "rows.jsonl")


def test_dialogues_with_the_same_first_request_have_the_same_fate(tmp_path: Path, library: Path) -> None:
    (tmp_path / "corpus").mkdir()
    texts = [f"Human: request {n}\n\nAssistant: answer {n} {again}" for n in range(300) for again in range(2)]
    with lzma.open(tmp_path / "corpus" / "talks.jsonl.xz", "wt") as lines:
        lines.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    found = corpora(tmp_path, library)["talks"]
    assert [document.text for document in found] == texts
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.split == second.split
    held = sum(document.split == "heldout" for document in found) / len(found)
    assert 0.002 < held < 0.06, "about two in a hundred are held out"


def test_requests_are_met_as_openings_of_dialogues_every_second_time(all_documents: Documents) -> None:
    texts = [document.text for document in all_documents["labelled/dangerous_request"]]
    opened = sum(text.startswith("Human: ") for text in texts) / len(texts)
    assert 0.3 < opened < 0.7
    assert all("request" in text for text in texts)


def test_large_and_empty_files_are_no_text(tmp_path: Path, data: Path) -> None:
    (tmp_path / "large.py").write_text("x = 1\n" * 50_000)
    (tmp_path / "empty.py").write_text("  \n")
    (tmp_path / "idle_test").mkdir()
    (tmp_path / "idle_test" / "t.py").write_text("y = 2\n")
    (tmp_path / "kept.py").write_bytes(b"z = 3  # \xff\n")
    assert [document.text for document in corpora(data, tmp_path)["python"]] == ["z = 3  # \ufffd"]
