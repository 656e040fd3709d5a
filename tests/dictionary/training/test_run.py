"""A whole run on a toy model: files, resume and report."""

import dataclasses
import json

import pytest
import torch

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.training import checkpoint
from monitor.dictionary.training.run import METRICS, Storage, save_run
from monitor.dictionary.training.settings import Objective
from monitor.errors import ConfigurationError
from tests.dictionary.training.toy_run import SETTINGS, WIDTH, Told, Toy, train


@pytest.mark.parametrize("objective", list(Objective))
def test_a_run_leaves_a_dictionary_and_a_report(tmp_path, objective):
    told = Told()
    report = train(tmp_path, settings=dataclasses.replace(SETTINGS, objective=objective), progress=told)
    save_run(report, Storage(tmp_path))
    found = load_dictionary(tmp_path)
    assert (found.autoencoder.features, found.autoencoder.d_model) == (64, WIDTH)
    assert (found.card.model_name, found.card.layer) == ("toy", 1)
    assert found.card.l0 == pytest.approx(report.evaluation.l0)
    assert [metrics.step for metrics in told.steps] == list(range(60))
    stored = json.loads((tmp_path / "training.json").read_text())
    assert stored["results"]["fvu"] == report.evaluation.fvu < 0.5
    assert stored["settings"]["features"] == 64
    assert sum(stored["density_histogram_log10"]["counts"]) == 64
    assert sum(stored["nearest_decoder_cosine_histogram"]["counts"]) == 64
    assert stored["history"][-1]["step"] == 59
    assert not (tmp_path / checkpoint.FILE).exists()
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(60))


def test_a_stopped_run_goes_on_to_the_same_end(tmp_path):
    whole = train(tmp_path / "whole")
    stopped = Toy(stop_after=10)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stopped)
    assert (tmp_path / "parts" / checkpoint.FILE).exists()
    assert not (tmp_path / "parts" / "cfg.json").exists()
    later = Toy()
    report = train(tmp_path / "parts", later)
    for name in ("encoder", "decoder", "encoder_bias", "threshold"):
        one, two = (getattr(load_dictionary(tmp_path / p).autoencoder, name) for p in ("whole", "parts"))
        assert torch.equal(one, two), name
    assert report.tokens < whole.tokens
    assert [m.step for m in report.history] == list(range(60))


def test_a_sink_behind_the_first_position_spoils_neither_training_nor_its_measure(tmp_path):
    """A token with a residual a thousand times as long once made a good dictionary look worse than none."""
    plain = train(tmp_path / "plain").evaluation
    model = Toy()
    model.embed[7] *= 1000
    report = train(tmp_path / "sink", model, exact=model)
    assert report.evaluation.explained_variance > plain.explained_variance - 0.1
    assert report.evaluation.tokens < plain.tokens
    assert report.outliers > 0
    limit = load_dictionary(tmp_path / "sink").card.norm_limit
    assert limit == pytest.approx(10 * 4.4, rel=0.2)


def test_restart(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Toy(stop_after=10))
    assert train(tmp_path, restart=True).tokens == SETTINGS.tokens


def test_text_that_ends_too_soon(tmp_path):
    with pytest.raises(ConfigurationError, match="does not fill one buffer"):
        train(tmp_path, count=20)
    with pytest.raises(ConfigurationError, match="the text ended after"):
        train(tmp_path, count=400)
