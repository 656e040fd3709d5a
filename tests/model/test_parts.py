"""Sampler, text stream, clamps, bank, prompts, loading: each alone."""

import json
import time

import pytest
import torch

from monitor.errors import BadRequest, DictionaryError, ModelError, TooLong
from monitor.model.engine.detokenizer import TextStream
from monitor.model.engine.sampler import Draw, Sampler
from monitor.model.load.model import digest_folder, load_model
from monitor.model.offline.residuals import Harvester, pack
from monitor.model.prompts import Prompter
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import check_clamps, merge
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Clamp, Sampling, Where
from tests.model.tiny import KINDS, dictionary, encode_all, loaded_model, maxima, plain_clamp, tokenizer


class TestSampler:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(3)) * 2

    def frequencies(self, draws: int = 4000, **wanted: float) -> torch.Tensor:
        sampler = Sampler(draws, torch.device("cpu"))
        sampler.prepare([Draw(Sampling(seed=number, **wanted)) for number in range(draws)])
        return torch.bincount(sampler.choose(self.logits.expand(draws, -1)), minlength=50) / draws

    def test_temperature_gives_the_softmax(self) -> None:
        wanted = (self.logits[0] / 0.8).softmax(-1)
        assert (self.frequencies(temperature=0.8) - wanted).abs().max() < 0.03

    def test_top_k_keeps_k(self) -> None:
        found = self.frequencies(temperature=1.5, top_k=3)
        assert set(found.nonzero().flatten().tolist()) == set(self.logits[0].topk(3).indices.tolist())

    def test_top_p_keeps_the_smallest_set(self) -> None:
        ordered = self.logits[0].softmax(-1).sort(descending=True)
        size = int((ordered.values.cumsum(-1) < 0.5).sum()) + 1
        found = self.frequencies(temperature=1.0, top_p=0.5)
        assert set(found.nonzero().flatten().tolist()) == set(ordered.indices[:size].tolist())

    def test_greedy_rows_beside_sampled_ones(self) -> None:
        sampler = Sampler(4, torch.device("cpu"))
        sampler.prepare([Draw(Sampling()), Draw(Sampling(temperature=2.0, seed=1)), None])
        chosen = sampler.choose(self.logits.expand(3, -1))
        assert chosen[0] == chosen[2] == self.logits.argmax()


class TestText:
    def feed(self, text: str, *stop: str) -> tuple[list[str], TextStream]:
        stream = TextStream(tokenizer(), stop)
        return [stream.push(i) for i in tokenizer()(text, add_special_tokens=False)["input_ids"]], stream

    def test_characters_come_whole(self) -> None:
        pieces, stream = self.feed("aé漢🙂")
        assert "".join(pieces) + stream.finish() == "aé漢🙂"
        assert all("\ufffd" not in piece for piece in pieces)

    def test_the_beginning_of_a_stop_string_is_held_back(self) -> None:
        pieces, stream = self.feed("one\n\nHum", "\n\nHuman:")
        assert "".join(pieces) == "one"
        assert stream.finish() == "\n\nHum"

    def test_text_ends_before_the_first_stop_string(self) -> None:
        pieces, stream = self.feed("one STOP two END", "END", "STOP")
        assert "".join(pieces) == "one "
        assert (stream.stopped, stream.finish()) == (True, "")

    def test_special_tokens_have_no_text(self) -> None:
        assert TextStream(tokenizer()).push(1) == ""


class TestClamps:
    def test_every_wrong_clamp_is_named(self) -> None:
        clamps = [Clamp(500, -1.0), Clamp(3, float("nan")), Clamp(3, float("inf")), Clamp(7, 1.0)]
        unit = maxima()
        unit[7] = 0
        with pytest.raises(BadRequest) as refused:
            check_clamps(clamps, 96, unit)
        fields = [violation.field for violation in refused.value.violations]
        assert fields == [
            "clamps[0].feature",
            "clamps[1].target",
            "clamps[2].feature",
            "clamps[2].target",
            "clamps[3].feature",
        ]

    def test_a_caller_strengthens_and_never_weakens(self) -> None:
        policy = [Clamp(1, -1.0, Where.EVERYWHERE), Clamp(2, -1.0)]
        caller = [Clamp(1, 3.0), Clamp(2, -2.0), Clamp(3, 4.0)]
        assert merge(policy, caller) == (Clamp(1, -1.0, Where.EVERYWHERE), Clamp(2, -2.0), Clamp(3, 4.0))


class TestBankAndTap:
    @pytest.mark.parametrize("kind", KINDS)
    def test_reads_and_clamps_as_defined(self, kind: str) -> None:
        sae, unit = dictionary(kind), maxima()
        bank = FeatureBank(sae, unit, range(10), [50], spare=2)
        bank.acquire([70])
        x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
        buffers = TapBuffers(bank, 64)
        clamps = (Clamp(2, -1.0), Clamp(50, -2.0, Where.EVERYWHERE), Clamp(70, 1.0))
        buffers.clamping = True
        for clamp in clamps:
            slot = bank.slot(clamp.feature)
            buffers.target[:20, slot] = clamp.target * unit[clamp.feature]
            (buffers.everywhere if clamp.where is Where.EVERYWHERE else buffers.active)[:10, slot] = True
        buffers.settle(bank)
        out = Tap(bank, torch.nn.Identity()).apply(x, buffers)
        wanted = plain_clamp(sae, x, clamps, unit).float()
        torch.testing.assert_close(out[:10], wanted[:10], rtol=1e-4, atol=1e-4)
        assert torch.equal(out[10:], x[10:])
        readings = buffers.readings[:20, :10].double()
        torch.testing.assert_close(readings, encode_all(sae, x)[:, :10] / unit[:10], rtol=1e-4, atol=1e-5)
        again = buffers.after[:10, :10].double()
        torch.testing.assert_close(again, encode_all(sae, out)[:10, :10] / unit[:10], rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("kind", KINDS)
    def test_no_reading_of_a_row_that_is_not_finite_is_a_number(self, kind: str, value: float) -> None:
        bank = FeatureBank(dictionary(kind), maxima(), range(10))
        x = torch.randn(6, 32, generator=torch.Generator().manual_seed(5))
        x[2, 7] = value
        buffers = TapBuffers(bank, 6)
        Tap(bank, torch.nn.Identity()).apply(x, buffers)
        finite = torch.isfinite(buffers.readings[:, :10])
        assert not finite[2].any()
        assert finite[[0, 1, 3, 4, 5]].all()

    def test_bfloat16_rows_are_cast_once(self) -> None:
        sae, unit = dictionary("relu"), maxima()
        bank = FeatureBank(sae, unit, range(96))
        x = torch.randn(8, 32).bfloat16()
        buffers = TapBuffers(bank, 8)
        buffers.clamping = True
        buffers.everywhere[:, :5] = True
        buffers.target[:, :5] = -1
        out = Tap(bank, torch.nn.Identity()).apply(x, buffers)
        clamps = tuple(Clamp(f, -1 / float(unit[f]), Where.EVERYWHERE) for f in range(5))
        assert torch.equal(out, plain_clamp(sae, x.float(), clamps, unit).bfloat16())

    def test_static_passes_compute_the_same(self) -> None:
        bank = FeatureBank(dictionary(), maxima(), range(10))
        x = torch.randn(8, 32)
        dynamic, static = TapBuffers(bank, 8), TapBuffers(bank, 8, static=True)
        tap = Tap(bank, torch.nn.Identity())
        assert tap.apply(x, dynamic) is None
        assert torch.equal(tap.apply(x, static), x)
        assert torch.equal(dynamic.readings[:, :10], static.readings[:, :10])

    def test_features_without_a_unit_are_refused(self) -> None:
        unit = maxima()
        unit[4] = 0
        with pytest.raises(DictionaryError, match="never active"):
            FeatureBank(dictionary(), unit, [4])
        with pytest.raises(DictionaryError, match="does not exist"):
            FeatureBank(dictionary(), unit, [96])


class TestPrompts:
    def prompter(self) -> Prompter:
        return Prompter(loaded_model())

    def test_one_bos_for_text_and_for_chat(self) -> None:
        text = self.prompter()("hello", truncate=False, room=0, reply=False)
        chat = self.prompter()([{"role": "user", "content": "hello"}], truncate=False, room=0, reply=True)
        assert (text.ids[0], text.ids.count(0)) == (0, 1)
        assert (chat.ids[0], chat.ids.count(0)) == (0, 1)
        assert tokenizer().decode(chat.ids[1:]) == "user: hello\nassistant:"

    @pytest.mark.parametrize("content", ["", " \n\t", [], [{"role": "user", "content": ""}]])
    def test_empty_input_is_refused(self, content: object) -> None:
        with pytest.raises(BadRequest):
            self.prompter()(content, truncate=False, room=0, reply=True)

    def test_too_long_is_refused_unless_truncation_is_asked_for(self) -> None:
        with pytest.raises(TooLong, match="201 tokens"):
            self.prompter()("x" * 200, truncate=False, room=8, reply=False)
        prompt = self.prompter()("a" * 100 + "b" * 100, truncate=True, room=8, reply=False)
        assert (len(prompt.ids), prompt.truncated, prompt.ids[0]) == (120, 81, 0)
        assert tokenizer().decode(prompt.ids[-100:]) == "b" * 100

    def test_a_prompt_of_nothing_but_bos_is_read_in_one_step(self) -> None:
        # Taken off one by one, these would keep a thread busy for a minute.
        begun = time.process_time()
        prompt = self.prompter()("<s>" * 300_000 + "hi", truncate=False, room=0, reply=False)
        assert (prompt.ids[0], len(prompt.ids)) == (0, 3)
        assert time.process_time() - begun < 20

    def test_a_response_that_fills_the_context_is_refused(self) -> None:
        with pytest.raises(BadRequest, match="no room"):
            self.prompter()("hello", truncate=True, room=127, reply=False)


class TestLoading:
    def saved(self, folder) -> None:
        loaded = loaded_model()
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)

    def test_a_saved_model_loads_with_its_digest(self, tmp_path) -> None:
        self.saved(tmp_path)
        loaded = load_model(tmp_path, device="cpu")
        assert (loaded.d_model, loaded.context, len(loaded.layers), loaded.middle) == (32, 128, 4, 2)
        assert loaded.digest == digest_folder(tmp_path)
        before = loaded.digest
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
        assert digest_folder(tmp_path) != before

    def test_missing_folders_and_files(self, tmp_path) -> None:
        with pytest.raises(ModelError, match="no model folder"):
            load_model(tmp_path / "nothing")
        with pytest.raises(ModelError, match=r"no config\.json"):
            load_model(tmp_path)

    def test_pickled_weights_are_refused(self, tmp_path) -> None:
        self.saved(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        torch.save({}, tmp_path / "pytorch_model.bin")
        with pytest.raises(ModelError, match="pickled weights"):
            load_model(tmp_path)

    def test_truncated_weights_are_refused(self, tmp_path) -> None:
        self.saved(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_model(tmp_path)

    @pytest.mark.parametrize(("device", "dtype"), [("gpu", "auto"), ("cpu", "int7")])
    def test_unknown_device_and_dtype(self, tmp_path, device: str, dtype: str) -> None:
        self.saved(tmp_path)
        with pytest.raises(ModelError, match="unknown"):
            load_model(tmp_path, device=device, dtype=dtype)


class TestHarvest:
    def test_residuals_are_the_hidden_states_after_the_layer(self) -> None:
        loaded = loaded_model()
        ids = torch.randint(2, 250, (3, 20))
        wanted = loaded.model(ids, output_hidden_states=True, use_cache=False)
        harvester = Harvester(loaded)
        assert harvester.layer == 2
        assert torch.equal(harvester.residuals(ids), wanted.hidden_states[3])
        assert torch.equal(harvester.logits(ids), wanted.logits)
        assert torch.equal(harvester.logits(ids, lambda x: x), wanted.logits)
        assert not torch.equal(harvester.logits(ids, torch.zeros_like), wanted.logits)

    def test_a_layer_that_does_not_exist(self) -> None:
        with pytest.raises(ModelError, match="layers 0 to 3"):
            Harvester(loaded_model(), 4)

    def test_packed_rows_begin_documents_with_bos(self) -> None:
        rows = list(pack(["ab", "cde", "f" * 20], loaded_model(), 8))
        assert len(rows) == 3
        assert (
            rows[0].tolist()
            == [
                *tokenizer()("ab")["input_ids"],
                *tokenizer()("cde")["input_ids"],
                *tokenizer()("fff")["input_ids"],
            ][:8]
        )
