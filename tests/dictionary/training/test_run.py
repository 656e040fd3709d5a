"""A whole run on a toy model: files, resume, report, picture, sweep."""

import dataclasses
import json

import pytest
import torch

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.training import checkpoint, plots, sweep
from monitor.dictionary.training.run import METRICS, Storage, Subject, save_run, train_dictionary
from monitor.dictionary.training.settings import Objective, TrainSettings
from monitor.errors import ConfigurationError

VOCABULARY, WIDTH, BOS = 60, 16, 0


class Toy:
    """A model with an embedding and a head; counts its forward passes, and can be made to stop."""

    def __init__(self, stop_after=None):
        random = torch.Generator().manual_seed(3)
        self.embed = torch.randn(VOCABULARY, WIDTH, generator=random)
        self.head = torch.randn(WIDTH, VOCABULARY, generator=random)
        self.calls, self.stop_after = 0, stop_after

    def residuals(self, ids):
        self.calls += 1
        if self.stop_after is not None and self.calls > self.stop_after:
            raise KeyboardInterrupt
        return self.embed[ids] + 0.5 * self.embed[ids].roll(1, dims=1)

    def logits(self, ids, replace):
        x = self.embed[ids]
        return (x if replace is None else replace(x)) @ self.head


def rows(count=3000):
    ids = torch.randint(1, VOCABULARY, (count, 12), generator=torch.Generator().manual_seed(5))
    ids[:, 0] = BOS
    return ids


def subject(model=None, count=3000):
    model = model or Toy()
    return Subject(
        rows=lambda: iter(rows(count)),
        held_out=[rows()[:32], rows()[32:64]],
        residuals=model.residuals,
        exact_residuals=Toy().residuals,
        logits=model.logits,
        bos=BOS,
        d_model=WIDTH,
        device=torch.device("cpu"),
        card=DictionaryCard("toy", "blocks.1.hook_resid_post", 1, True, 12, "made up"),
    )


SETTINGS = TrainSettings(64, 60 * 128, k=4, batch=128, buffer=1024, learning_rate=3e-3)


def train(folder, model=None, settings=SETTINGS, count=3000, watch=None, **storage):
    return train_dictionary(
        settings, subject(model, count), Storage(folder, **storage), watch or (lambda metrics: None)
    )


@pytest.mark.parametrize("objective", list(Objective))
def test_a_run_leaves_a_dictionary_and_a_report(tmp_path, objective):
    seen = []
    report = train(tmp_path, settings=dataclasses.replace(SETTINGS, objective=objective), watch=seen.append)
    save_run(report, Storage(tmp_path))
    found = load_dictionary(tmp_path)
    assert (found.autoencoder.features, found.autoencoder.d_model) == (64, WIDTH)
    assert (found.card.model_name, found.card.layer) == ("toy", 1)
    assert found.card.l0 == pytest.approx(report.evaluation.l0)
    assert [metrics.step for metrics in seen] == list(range(60))
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


def test_restart(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Toy(stop_after=10))
    assert train(tmp_path, restart=True).tokens == SETTINGS.tokens


def test_text_that_ends_too_soon(tmp_path):
    with pytest.raises(ConfigurationError, match="does not fill one buffer"):
        train(tmp_path, count=20)
    with pytest.raises(ConfigurationError, match="the text ended after"):
        train(tmp_path, count=400)


def test_picture(tmp_path):
    report = train(tmp_path)
    path = plots.draw_training(report.as_json(), tmp_path / "training.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_sweep(tmp_path):
    plan = sweep.Plan((16, 32), (20 * 128, 40 * 128), (1e-3, 4e-3))
    chosen = plan.runs(SETTINGS)
    assert len(chosen) == 8
    assert [s.features * s.tokens for s in chosen] == sorted(s.features * s.tokens for s in chosen)
    found = [
        sweep.summary(train(tmp_path / str(number), settings=settings), WIDTH)
        for number, settings in enumerate(chosen)
    ]
    stored = json.loads(sweep.write_sweep(tmp_path, found).read_text())
    assert len(stored["runs"]) == 8
    assert len(stored["best_learning_rates"]) == 4
    assert stored["loss_against_compute"]["exponent"] < 0
    assert plots.draw_sweep(found, tmp_path / "sweep.png").stat().st_size > 10_000


def test_power_law_and_frontier():
    exponent, factor = sweep.power_law([(10.0**n, 3 * 10.0 ** (-0.5 * n)) for n in range(1, 5)])
    assert exponent == pytest.approx(-0.5)
    assert factor == pytest.approx(3)
    runs = [{"flops": f, "loss": loss} for f, loss in ((1, 5.0), (2, 6.0), (3, 4.0), (3, 4.5), (4, 4.0))]
    assert [run["flops"] for run in sweep.frontier(runs)] == [1, 3]


def test_compute_counts_six_per_weight_and_token():
    settings = dataclasses.replace(SETTINGS, features=10, tokens=1000, k=4)
    assert sweep.flops(settings, 16) == 6 * 1000 * 2 * 10 * 16
