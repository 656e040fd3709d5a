"""What the recipe reads, how it cuts it into rows, and its command; training is in `test_training.py`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from monitor.errors import InputError
from monitor.lab.texts import read_labelled
from monitor.recipes.tiny.__main__ import app
from monitor.recipes.tiny.corpus import CorpusText, corpora
from monitor.recipes.tiny.network import TrainingForward, next_token_loss
from monitor.recipes.tiny.plan import PretrainingPlan
from monitor.recipes.tiny.sampler import RowSampler
from monitor.recipes.tiny.shards import pack
from monitor.recipes.tiny.tokenizer import as_training_text, encode_documents

Documents = dict[str, list[CorpusText]]


class TestCorpus:
    def test_holds_out_and_leaves_out_what_it_must(self, all_documents: Documents) -> None:
        assert {d.split for d in all_documents["wikitext2_heldout"]} == {"heldout"}
        assert {d.split for d in all_documents["talks"]} == {"train", "heldout"}
        assert "labelled/benign" not in all_documents
        assert not any("SKIPPED" in d.text for d in all_documents["python"])

    def test_no_training_text_is_also_held_out(self, all_documents: Documents) -> None:
        for name in ("labelled/statements", "labelled/dangerous_request"):
            texts = {
                half: {d.text for d in all_documents[name] if d.split == half}
                for half in ("train", "heldout")
            }
            assert texts["train"]
            assert texts["heldout"]
            assert texts["train"].isdisjoint(texts["heldout"])

    def test_the_same_text_in_both_halves_is_not_trained_on(
        self, tmp_path: Path, data: Path, library: Path
    ) -> None:
        import json
        import shutil

        shutil.copytree(data, tmp_path / "data")
        rows = [{"text": "Shared!", "label": 1, "kind": "prompt", "group": str(n)} for n in range(8)]
        path = tmp_path / "data/labelled/dangerous_request/pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = corpora(tmp_path / "data", library)["labelled/dangerous_request"]
        assert {d.split for d in found} == {"heldout"}

    def test_is_read_the_same_twice(self, data: Path, library: Path, all_documents: Documents) -> None:
        assert corpora(data, library) == all_documents

    def test_an_empty_folder_and_a_bad_row_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="point --data"):
            corpora(tmp_path)
        (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "1", "kind": "k", "group": "g"}\n')
        with pytest.raises(InputError, match=r"rows\.jsonl:1: `label` is '1'; write 1 or 0"):
            read_labelled(tmp_path / "rows.jsonl")


class TestTokenizer:
    @pytest.mark.parametrize(
        "text", ["plain words", "  tabs\t\r\n\n  ", "日本語 🦊 é̀", "".join(map(chr, range(256))), ""]
    )
    def test_gives_every_text_back(self, tokenizer: PreTrainedTokenizerFast, text: str) -> None:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text

    def test_begins_once_in_plain_text_and_in_a_chat(self, tokenizer: PreTrainedTokenizerFast) -> None:
        begin = tokenizer.bos_token_id
        assert tokenizer("hello").input_ids.count(begin) == 1
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == "<|begin|>Be brief.\n\nHuman: Hello\n\nAssistant:"
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids[0] == begin
        assert ids.count(begin) == 1
        assert tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids

    def test_a_chat_is_written_as_training_writes_it(self, tokenizer: PreTrainedTokenizerFast) -> None:
        turns = [("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D")]
        messages = [{"role": role, "content": content} for role, content in turns]
        trained = as_training_text(
            "Human: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: D\n\nHuman: unanswered"
        )
        assert tokenizer.apply_chat_template(messages, tokenize=False) == "<|begin|>" + trained

    def test_loads_as_a_fast_tokenizer(self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        tokenizer.save_pretrained(tmp_path)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        assert loaded.is_fast
        assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<|begin|>", "<|end|>", "<|pad|>")
        assert loaded("Hello 12").input_ids == tokenizer("Hello 12").input_ids


class TestRows:
    def test_hold_all_documents_and_begin_anew(self) -> None:
        documents = [[1, *range(10, 10 + n), 2] for n in (3, 5, 40, 7, 1, 9, 90, 4, 4, 11)]
        rows = pack(documents, 16)
        assert rows.dtype == np.uint16
        assert rows.shape[1] == 16
        assert (rows[:, 0] == 1).all()
        flat = rows.reshape(-1).tolist()
        assert all(n in flat for n in range(10, 60))

    def test_sampler_reads_everything_once_before_anything_twice(self) -> None:
        rows = np.arange(12, dtype=np.uint16).reshape(6, 2)
        drawn = RowSampler({"a": rows}, 0).batch(12, {"a": 1.0})
        for half in (drawn[:6], drawn[6:]):
            assert sorted(half.flatten().tolist()) == list(range(12))


class TestForward:
    def test_agrees_with_the_library(self, plan: PretrainingPlan) -> None:
        config = plan.shape.config(1, 2, 0)
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        ids = torch.randint(0, 400, (3, 33))
        forward = TrainingForward(config, 32, compute=torch.float32)
        weights = dict(model.named_parameters())
        loss = next_token_loss(
            forward(weights, ids[:, :-1]), weights["model.embed_tokens.weight"], ids[:, 1:], False
        )
        loss.backward()
        ours = {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}
        model.zero_grad()
        logits = model(ids[:, :-1]).logits
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        expected.backward()
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
        for name, weight in weights.items():
            torch.testing.assert_close(ours[name], weight.grad, atol=1e-5, rtol=1e-3)


def test_context_is_part_of_the_plan(plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast) -> None:
    assert replace(plan, rows=6).tokens_per_step == 6 * plan.shape.context
    ids = encode_documents(tokenizer, ["Human: a\n\nAssistant: b"])[0]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


class TestCommand:
    @pytest.mark.parametrize(
        ("flags", "says"),
        [
            ([], "exactly one of the two"),
            (["--minutes", "1", "--tokens", "5"], "exactly one of the two"),
            (["--tokens", "-5"], "above zero"),
            (["--tokens", "5", "--resume"], "holds no checkpoint"),
        ],
    )
    def test_refuses_what_it_cannot_do(self, tmp_path: Path, data: Path, flags: list[str], says: str) -> None:
        result = CliRunner().invoke(app, ["--data", str(data), "--out", str(tmp_path / "run"), *flags])
        assert result.exit_code == 2
        assert says in " ".join(result.output.replace("│", " ").split())
        assert not (tmp_path / "run").exists()

    def test_never_trains_over_another_run(self, tmp_path: Path, data: Path) -> None:
        (tmp_path / "checkpoint.pt").write_bytes(b"precious")
        result = CliRunner().invoke(app, ["--data", str(data), "--out", str(tmp_path), "--tokens", "5"])
        assert result.exit_code == 2
        assert "--resume" in result.output
        assert (tmp_path / "checkpoint.pt").read_bytes() == b"precious"
