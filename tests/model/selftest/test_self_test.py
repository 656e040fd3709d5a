"""The self-test's parts on small random models and dictionaries, against plain float64 computation."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.storage.matrix import Matrix
from monitor.dictionary.storage.stored_autoencoder import StoredAutoencoder
from monitor.errors import DictionaryError, ModelError
from monitor.model.load.hook_points import MLP_OUT, Place
from monitor.model.offline.residuals import Harvester
from monitor.model.selftest import measurement as measuring
from monitor.model.selftest.capture import capture, one_pass
from monitor.model.selftest.expected import ExpectedSource, compare, distance, expected_of
from monitor.model.selftest.measurement import (
    KindNumbers,
    Measurement,
    ResidualRows,
    measure,
    measure_sample,
    rows_of,
)
from monitor.model.selftest.texts import load_texts, texts_for
from monitor.model.selftest.verified_records import FILE, Record, best_record, load_records, save_record
from tests.model.tiny import KINDS, WIDTH, decode_all, dictionary, encode_all, loaded_model, prompt

FOUND = Measurement(1000, 30.0, 0.8, 31.0, 0.7, 25.0, 0.0)
RECORD = Record("sha256:d", "sha256:m", "blocks.1.hook_resid_post", "float32", "sha256:t", FOUND)


def some_rows(count: int = 200) -> ResidualRows:
    x = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(3)) * 2 + 0.3
    return rows_of(x.split(20))


def plain(x: torch.Tensor, sae) -> tuple[float, float]:
    activations = encode_all(sae, x)
    left = (x.double() - decode_all(sae, activations, x)).square().sum()
    variance = (x.double() - x.double().mean(0)).square().sum()
    return float((activations > 0).sum() / len(x)), float(1 - left / variance)


@pytest.mark.parametrize("kind", KINDS)
class TestMeasure:
    def test_is_the_plain_computation(self, kind: str) -> None:
        rows, sae = some_rows(), dictionary(kind)
        found = measure(rows, sae)
        l0, explained = plain(rows.x, sae)
        assert found.tokens == 190
        assert found.l0 == pytest.approx(l0, abs=0.02)
        assert found.explained_variance == pytest.approx(explained, rel=1e-3)
        l0, explained = plain(rows.x[rows.early], sae)
        assert found.early_l0 == pytest.approx(l0, abs=0.05)
        assert found.early_explained_variance == pytest.approx(explained, rel=1e-3)
        assert found.norm == pytest.approx(float(rows.x.norm(dim=-1).median()))

    def test_a_block_of_features_at_a_time_gives_the_same(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows, sae = some_rows(), dictionary(kind)
        whole = measure(rows, sae)
        monkeypatch.setattr(measuring, "_FEATURES", 17)
        found = measure(rows, sae)
        assert found.l0 == whole.l0
        assert found.explained_variance == pytest.approx(whole.explained_variance, rel=1e-4)


def test_a_sample_of_all_features_is_exact_and_says_nothing_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, sae = some_rows(), dictionary("jumprelu")
    monkeypatch.setattr(measuring, "_RUNS", 4)
    found = measure_sample(rows, sae)
    assert found.l0 == pytest.approx(measure(rows, sae).l0)
    assert not found.whole
    expected = expected_of(DictionaryCard(), replace(RECORD, measured=FOUND), "float32")
    assert {line.name for line in compare(found, expected)} == {"L0", "median norm", "norm outliers"}


def test_a_dictionary_that_stays_in_its_files_measures_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sae = some_rows(), dictionary("jumprelu")
    matrices = {name: Matrix(getattr(sae, name), name) for name in ("encoder", "decoder")}
    rest = {f.name: getattr(sae, f.name) for f in fields(sae) if f.name not in matrices}
    del rest["gate_encoder"]
    stored = StoredAutoencoder(matrices, rest)
    monkeypatch.setattr(measuring, "_FEATURES", 20)
    assert measure(rows, stored) == measure(rows, sae)
    assert not stored.resident


def test_scaling_the_input_is_scaling_the_dictionary_the_other_way() -> None:
    rows, sae = some_rows(), replace(dictionary("relu"), input_bias=None)
    other = replace(sae, encoder=sae.encoder * 3, decoder=sae.decoder / 3, decoder_bias=sae.decoder_bias / 3)
    scaled, folded = measure(rows, sae, scale=3.0), measure(rows, other)
    assert scaled.l0 == folded.l0
    assert scaled.explained_variance == pytest.approx(folded.explained_variance, rel=1e-4)


def test_bos_outliers_and_what_is_not_finite_are_left_out() -> None:
    text = torch.ones(12, WIDTH)
    text[0], text[4], text[7, 2] = 900.0, 90.0, math.nan
    rows = rows_of([text], limit=60.0)
    assert len(rows.x) == 9
    assert bool((rows.x == 1).all())
    assert rows.outliers == pytest.approx(1 / 11)
    assert not rows.finite
    assert int(rows.early.sum()) == 6


class TestCapture:
    def test_is_what_each_text_gives_alone(self) -> None:
        loaded = loaded_model()
        ids = [prompt(n) for n in range(20)]
        places = [Place(1), Place(2, MLP_OUT)]
        found = capture(loaded, places, ids)
        for place in places:
            for row, hidden in zip(ids, found[place], strict=True):
                alone = Harvester(loaded, place).residuals(torch.tensor([row]))[0]
                torch.testing.assert_close(hidden, alone, rtol=1e-4, atol=1e-5)

    def test_a_layer_that_runs_twice_is_refused(self) -> None:
        loaded = loaded_model()
        loaded.layers[2].mlp = _Twice(loaded.layers[2].mlp)
        with pytest.raises(ModelError, match="more than once"):
            one_pass(loaded, [Place(2, "mlp.inner")], torch.tensor([prompt(3)]), whole=True)

    def test_a_place_that_is_not_reached_is_refused(self) -> None:
        loaded = loaded_model()
        loaded.layers[2].spare = torch.nn.Linear(WIDTH, WIDTH)
        with pytest.raises(ModelError, match="never reached"):
            one_pass(loaded, [Place(2, "spare")], torch.tensor([prompt(3)]))

    def test_rows_that_are_not_one_per_token_are_refused(self) -> None:
        loaded = loaded_model()
        loaded.layers[2].mlp = _Short(loaded.layers[2].mlp)
        with pytest.raises(ModelError, match="gave rows for"):
            one_pass(loaded, [Place(2, "mlp.last")], torch.tensor([prompt(3)]), whole=True)


class _Twice(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.inner(x)


class _Short(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.last = inner, torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last(x[:, -1:])
        return self.inner(x)


def test_the_texts_are_read_as_the_server_reads_them() -> None:
    found = texts_for(loaded_model())
    texts, digest = load_texts()
    assert len(found.ids) == len(texts) > 30
    assert {row[0] for row in found.ids} == {found.bos} == {0}
    assert (found.digest, len({len(row) for row in found.ids}) > 1) == (digest, True)


class TestRecords:
    def test_read_back_and_replaced_by_newer_ones(self, tmp_path: Path) -> None:
        save_record(tmp_path, RECORD)
        half = replace(RECORD, dtype="bfloat16")
        save_record(tmp_path, half)
        newer = replace(RECORD, measured=replace(FOUND, l0=31.0))
        save_record(tmp_path, newer)
        assert load_records(tmp_path) == (half, newer)
        assert best_record(load_records(tmp_path), RECORD) == newer
        assert best_record(load_records(tmp_path), replace(RECORD, dtype="float16")) in (half, newer)

    def test_of_another_dictionary_they_go(self, tmp_path: Path) -> None:
        save_record(tmp_path, RECORD)
        other = replace(RECORD, dictionary="sha256:other")
        assert best_record(load_records(tmp_path), other) is None
        save_record(tmp_path, other)
        assert load_records(tmp_path) == (other,)

    def test_of_another_layer_they_count(self) -> None:
        assert best_record([RECORD], replace(RECORD, place="blocks.2.hook_resid_post")) == RECORD

    @pytest.mark.parametrize(
        "content", ["", "[]", '{"format": "x"}', '{"format": "sae-monitor.verified.v1"}']
    )
    def test_broken_files_are_refused(self, tmp_path: Path, content: str) -> None:
        (tmp_path / FILE).write_text(content)
        with pytest.raises(DictionaryError, match="dictionary verify"):
            load_records(tmp_path)

    def test_numbers_that_are_none_are_refused(self, tmp_path: Path) -> None:
        path = save_record(tmp_path, RECORD)
        content = json.loads(path.read_text())
        content["records"][0]["measured"]["l0"] = math.nan
        path.write_text(json.dumps(content))
        with pytest.raises(DictionaryError, match="not finite"):
            load_records(tmp_path)


class TestKinds:
    """What is expected is expected of a kind of text."""

    KINDS = (KindNumbers("prose", 32.0, 0.85), KindNumbers("code", 25.0, 0.6))

    def test_are_measured_apart(self) -> None:
        x = torch.randn(60, WIDTH, generator=torch.Generator().manual_seed(3)) * 2 + 0.3
        rows = rows_of(x.split(20), limit=math.inf, kinds=["prose", "code", "prose"])
        sae = dictionary("relu")
        found = measure(rows, sae)
        assert [numbers.kind for numbers in found.kinds] == ["prose", "code"]
        for numbers, mine in zip(found.kinds, (torch.cat([x[1:20], x[41:60]]), x[21:40]), strict=True):
            l0, explained = plain(mine, sae)
            assert numbers.l0 == pytest.approx(l0, abs=0.05)
            assert numbers.explained_variance == pytest.approx(explained, rel=1e-3)

    def test_a_declared_value_is_met_by_the_kind_that_is_nearest(self) -> None:
        found = replace(FOUND, explained_variance=0.62, kinds=self.KINDS)
        declared = expected_of(DictionaryCard(l0=31.0, explained_variance=0.86), None, "float32")
        lines = {line.check: line for line in compare(found, declared)}
        assert (lines["variance"].name, lines["l0"].name) == ("explained variance, prose", "L0, prose")
        assert distance(tuple(lines.values())) < 1
        assert distance(compare(replace(found, kinds=()), declared)) > 1
        # No kind may lend its L0 to another one's explained variance.
        far = (replace(self.KINDS[0], l0=50.0), replace(self.KINDS[1], l0=31.0))
        assert distance(compare(replace(found, kinds=far), declared)) > 1

    def test_a_record_is_kept_and_compared_kind_by_kind(self, tmp_path: Path) -> None:
        record = replace(RECORD, measured=replace(FOUND, kinds=self.KINDS), norm_limit=240.0)
        save_record(tmp_path, record)
        assert load_records(tmp_path) == (record,)
        expected = expected_of(DictionaryCard(), record, "float32")
        assert distance(compare(record.measured, expected)) == 0
        worse = replace(FOUND, kinds=(self.KINDS[0], replace(self.KINDS[1], explained_variance=0.5)))
        off = [line.name for line in compare(worse, expected) if line.off > 1]
        assert off == ["explained variance, code"]


class TestExpected:
    def test_sources_in_order(self) -> None:
        card = DictionaryCard(l0=40.0, explained_variance=0.9)
        assert expected_of(card, RECORD, "float32").source is ExpectedSource.RECORDED
        assert expected_of(card, RECORD, "bfloat16").source is ExpectedSource.RECORDED_ELSEWHERE
        assert expected_of(card, None, "float32").source is ExpectedSource.DECLARED
        assert expected_of(DictionaryCard(), None, "float32").source is ExpectedSource.NONE

    def test_bounds(self) -> None:
        expected = expected_of(DictionaryCard(), RECORD, "float32")
        assert distance(compare(FOUND, expected)) == 0
        for change in (
            {"l0": 31.5},
            {"explained_variance": 0.78},
            {"norm": 27.0},
            {"early_explained_variance": 0.6},
            {"outliers": 0.02},
            {"l0": math.nan},
        ):
            assert distance(compare(replace(FOUND, **change), expected)) > 1
        assert distance(compare(replace(FOUND, l0=30.5, norm=25.4), expected)) < 1
        assert distance(compare(replace(FOUND, l0=1e6), expected_of(DictionaryCard(), None, "float32"))) == 0
