"""Locks of another digest: bound to this pair where their numbers hold, refused with the reason where they do not."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.lab import open_pair
from monitor.lab.bound_locks import Binding, bind, bindings
from monitor.lab.pair import Pair
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
    change(tmp_path, pair.loaded.digest, OTHER)
    return tmp_path


def change(folder: Path, then: str, now: str, *, pattern: bool = False) -> None:
    path = folder / f"{NAME}.lock.yaml"
    text = path.read_text()
    changed = re.sub(then, now, text) if pattern else text.replace(then, now)
    assert changed != text
    path.write_text(changed)


def bound(pair: Pair, folder: Path) -> Binding:
    [one] = bind(pair, folder, lambda _: None)
    return one


@pytest.mark.slow
def test_a_lock_that_holds_is_bound_and_keeps_its_numbers(pair: Pair, folder: Path) -> None:
    before = (folder / f"{NAME}.lock.yaml").read_text()
    assert bindings(pair, folder) == [Binding(NAME, ("model",))]
    assert (folder / f"{NAME}.lock.yaml").read_text() == before
    assert bound(pair, folder) == Binding(NAME, ("model",), written=True)
    assert (folder / f"{NAME}.lock.yaml").read_text() == before.replace(OTHER, pair.loaded.digest)
    assert bindings(pair, folder) == [Binding(NAME, ())]


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
    before = (folder / f"{NAME}.lock.yaml").read_text()
    one = bound(pair, folder)
    assert not one.written
    assert re.search(why, "; ".join(one.why_not))
    assert (folder / f"{NAME}.lock.yaml").read_text() == before


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
def test_the_command_says_what_it_found(folder: Path) -> None:
    run = CliRunner()
    stale = run.invoke(app, ["policy", "lock", str(folder)])
    assert (stale.exit_code, "of another model" in stale.output) == (1, True)
    now = run.invoke(app, ["policy", "lock", str(folder), "--rebind"])
    assert (now.exit_code, "bound now" in now.output) == (0, True)
