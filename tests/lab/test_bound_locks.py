"""Locks of another digest: bound to this pair where their numbers hold, refused with the reason where they do not."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.lab import open_pair
from monitor.lab.bound_locks import Binding, _write, bind, bindings
from monitor.lab.pair import Pair
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import write_lock
from monitor.policy.files.lock_folders import lock_path
from monitor.policy.files.probe_weights import probe_path, store_probe
from monitor.policy.files.source import read_lock
from monitor.rpc.assembly import bundled_policies

NAME = "scams"
OTHER = "sha256:" + "5" * 64


@pytest.fixture(scope="module")
def pair() -> Pair:
    return open_pair(device="cpu")


@pytest.fixture
def folder(tmp_path: Path, pair: Pair) -> Path:
    """One shipped policy whose lock is of a model of another digest."""
    for path in (*bundled_policies().glob(f"{NAME}.*"), bundled_policies() / "benign.jsonl"):
        shutil.copy(path, tmp_path)
    lock(tmp_path).parent.mkdir(parents=True)
    shutil.copy(lock(bundled_policies()), lock(tmp_path))
    change(tmp_path, pair.loaded.digest, OTHER)
    return tmp_path


def lock(folder: Path, pair: str = "tiny") -> Path:
    return lock_path(folder / f"{NAME}.yaml", pair)


def change(folder: Path, then: str, now: str, *, pattern: bool = False) -> None:
    path = lock(folder)
    text = path.read_text()
    changed = re.sub(then, now, text) if pattern else text.replace(then, now)
    assert changed != text
    path.write_text(changed)


def bound(pair: Pair, folder: Path, **more: str) -> Binding:
    [one] = bind(pair, folder, lambda _: None, **more)
    return one


@pytest.mark.slow
def test_a_lock_that_holds_is_bound_and_keeps_its_numbers(pair: Pair, folder: Path) -> None:
    before = lock(folder).read_text()
    assert bindings(pair, folder) == [Binding(NAME, "tiny", ("model",))]
    assert lock(folder).read_text() == before
    assert bound(pair, folder) == Binding(NAME, "tiny", ("model",), written=True)
    assert lock(folder).read_text() == before.replace(OTHER, pair.loaded.digest)
    assert bindings(pair, folder) == [Binding(NAME, "tiny")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("then", "now", "why"),
    [
        (r"threshold: 0?\.\d+", "threshold: 0.001", "fires on .* of the benign texts and its lock says"),
        (r"threshold: 0?\.\d+", "threshold: 90.0", "catches 0% of the examples and its lock says"),
        (r"maximum: \d+\.\d+", "maximum: 0.5", "maximum"),
        ("examples: sha256:.{64}", f"examples: {OTHER}", "was fitted to other examples"),
    ],
)
def test_a_lock_that_does_not_hold_stays_as_it_is(
    pair: Pair, folder: Path, then: str, now: str, why: str
) -> None:
    change(folder, then, now, pattern=True)
    # Without recorded scores, what the lock states is what has to hold.
    lock(folder).write_text(lock(folder).read_text().partition("\nreference:")[0] + "\n")
    before = lock(folder).read_text()
    one = bound(pair, folder)
    assert not one.written
    assert re.search(why, "; ".join(one.why_not))
    assert lock(folder).read_text() == before


@pytest.mark.slow
def test_a_failing_test_of_the_policy_speaks_against_it(pair: Pair, folder: Path) -> None:
    (folder / f"{NAME}.test.yaml").write_text(
        f"apiVersion: monitor/v1\npolicy: {NAME}\ncases:\n- name: never\n  fires: [written]\n"
        "  texts: [The train to the coast leaves at nine.]\n"
    )
    one = bound(pair, folder)
    assert (one.written, len(one.why_not)) == (False, 1)
    assert "its test `never` fails" in one.why_not[0]


@pytest.mark.slow
def test_a_lock_of_another_pair_is_taken_where_that_is_asked_for_and_stays_there(
    pair: Pair, folder: Path
) -> None:
    lock(folder).parent.rename(folder / "locks" / "other")
    before = lock(folder, "other").read_text()
    assert bindings(pair, folder) == [Binding(NAME, "tiny", missing=True)]
    assert bound(pair, folder) == Binding(NAME, "tiny", missing=True)
    assert bindings(pair, folder, taken="other") == [Binding(NAME, "other", ("model",))]
    assert bound(pair, folder, locks="mine", taken="other") == Binding(NAME, "mine", ("model",), written=True)
    assert lock(folder, "other").read_text() == before
    assert lock(folder, "mine").read_text() == before.replace(OTHER, pair.loaded.digest)
    assert bindings(pair, folder) == [Binding(NAME, "mine")]


@pytest.mark.slow
def test_the_weights_of_a_probe_are_taken_along(pair: Pair, folder: Path) -> None:
    made, weights = read_lock(lock(folder))[1], np.arange(2000.0)
    probe = store_probe(lock(folder), weights, bias=0.0, scale=1.0)
    write_lock(folder / f"{NAME}.yaml", made.model_copy(update={"probe": probe}), "tiny")
    [source] = read_folder(folder, "tiny")
    assert source.lock is not None
    other = source.lock.model_copy(update={"model": source.lock.model.model_copy(update={"digest": OTHER})})
    _write(source, lock(folder, "second"), other)
    copied = probe_path(lock(folder, "second"))
    assert copied.read_bytes() == probe_path(lock(folder)).read_bytes()
    [again] = read_folder(folder, "second")
    assert again.weights == tuple(weights)


@pytest.mark.slow
def test_the_command_says_what_it_found(folder: Path) -> None:
    run = CliRunner()
    stale = run.invoke(app, ["policy", "lock", str(folder)])
    assert (stale.exit_code, "of another model" in stale.output) == (1, True)
    assert "in locks/" in stale.output
    now = run.invoke(app, ["policy", "lock", str(folder), "--rebind"])
    assert (now.exit_code, "bound now" in now.output) == (0, True)
