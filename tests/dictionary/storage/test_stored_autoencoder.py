"""Of a dictionary of a million features (34 GB in float32), only the watched features are read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.storage.stored_autoencoder import StoredAutoencoder
from monitor.errors import DictionaryError
from monitor.model.load.hook_points import Place
from monitor.model.runtime import LoadedPair, Runtime
from monitor.records import WatchPlan
from tests.dictionary.large import FEATURES, WIDTH, large_dictionary, patch
from tests.dictionary.running_large import IDS, model, residuals

CHOSEN = [0, 5, 777_777, FEATURES - 1]
MEASURE = """
import json, pathlib, re, sys, time
import psutil, torch
from tests.dictionary.running_large import read
torch.set_num_threads(1)
warm = psutil.Process().memory_info().rss / 1024
start = time.process_time()
readings = read(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
# Not ru_maxrss, which begins at what the parent had when it forked.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
used = int(peak[1]) - warm
print(json.dumps({"readings": readings, "megabytes": used / 1024, "seconds": time.process_time() - start}))
"""


@pytest.fixture(scope="module", params=["[d, n]", "[n, d]"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "dictionary"
    return folder, *large_dictionary(folder, CHOSEN, turned=request.param == "[d, n]")


@pytest.mark.slow
def test_watching_loads_only_what_it_needs(made):
    """To the end of the path, in a process of its own: model, runtime and scorer, with 96 more features."""
    folder, encoder, _ = made
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), json.dumps(CHOSEN), "96"],
        capture_output=True,
        text=True,
        timeout=250,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    pre = residuals().double() @ encoder.double().T
    expected = pre * (pre > 0.25)
    assert float((expected > 0).double().mean()) > 0.2
    read = torch.tensor(found["readings"], dtype=torch.float64)
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-4)
    assert found["megabytes"] < 400
    assert found["seconds"] < 60  # of processor time: other work on the machine does not count


def test_rows_are_those_of_the_file(made):
    folder, encoder, decoder = made
    sae = load_dictionary(folder).autoencoder
    assert isinstance(sae, StoredAutoencoder)
    assert (sae.features, sae.d_model) == (FEATURES, WIDTH)
    for number, feature in enumerate(CHOSEN):
        row = sae.row(feature)
        assert torch.equal(row.encoder, encoder[number])
        assert torch.equal(row.decoder, decoder[number])
        assert float(row.threshold) == 0.25
    chosen = sae.select(torch.tensor(CHOSEN))
    assert torch.equal(chosen.encoder, encoder)
    assert torch.equal(chosen.decoder, decoder)


def test_all_of_it_is_refused_where_it_does_not_fit(made, monkeypatch):
    class Memory:
        available = 20_000_000_000

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    sae = load_dictionary(made[0]).autoencoder
    for need in (sae.whole, lambda: sae.encode(torch.zeros(1, WIDTH)), lambda: sae.decoder):
        with pytest.raises(DictionaryError, match=r"34\.4 GB in float32, and 20\.0 GB are free on cpu"):
            need()
    assert not sae.resident


def test_inspecting_does_not_read_all_of_it(made):
    dictionary = load_dictionary(made[0])
    parts = LoadedPair(model(), dictionary, Place(0))
    with pytest.raises(DictionaryError, match=r"all 1048576 features, 34\.4 GB in float32"):
        Runtime(parts, WatchPlan((0,))).inspect(IDS, 5)
    assert not dictionary.autoencoder.resident


def test_digest_reads_samples_and_sees_what_differs(made):
    folder, *_ = made
    before = load_dictionary(folder).digest
    assert load_dictionary(folder).digest == before
    weights = max(folder.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    where = weights.stat().st_size * 700 // 1024 + 40
    patch(weights, where, torch.tensor([1.0]))
    assert load_dictionary(folder).digest != before
    patch(weights, where, torch.tensor([0.0]))
    assert load_dictionary(folder).digest == before
