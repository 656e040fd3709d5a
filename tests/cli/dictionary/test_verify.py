"""`sae-monitor dictionary verify` as users run it."""

import json
import shutil
from pathlib import Path

import pytest

from monitor.pairs import tiny


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """The bundled pair with a dictionary folder of its own and no record."""
    folder = tmp_path / "dictionary"
    shutil.copytree(tiny.dictionary_path(), folder)
    (folder / "verified.json").unlink(missing_ok=True)
    return ["--model", str(tiny.model_path()), "--dictionary", str(folder)]


@pytest.mark.slow
def test_records_and_holds_itself_to_the_record(run, pair: list[str]) -> None:
    first = run("dictionary", "verify", *pair)
    assert first.exit_code == 0, first.output
    assert "VERIFIED" in first.output
    record = json.loads((Path(pair[-1]) / "verified.json").read_text())["records"][0]
    assert record["place"].startswith("blocks.")
    again = run("dictionary", "verify", *pair, "--json")
    said = json.loads(again.output)
    assert (again.exit_code, said["expected_from"], said["passed"]) == (0, "recorded", True)
    measured, kept = said["record"]["measured"], record["measured"]
    for one, other in zip([measured, *measured.pop("kinds")], [kept, *kept.pop("kinds")], strict=True):
        assert one.pop("kind", "") == other.pop("kind", "")
        assert one == pytest.approx(other)


@pytest.mark.slow
def test_another_layer_is_refused_named_and_recorded_only_when_told_to(run, pair: list[str]) -> None:
    run("dictionary", "verify", *pair)
    file = Path(pair[-1]) / "verified.json"
    before = file.read_text()
    wrong = run("dictionary", "verify", *pair, "--layer", "0")
    assert wrong.exit_code == 1
    assert "NOT AS EXPECTED" in wrong.output
    assert "wrong layer" in wrong.output.split("what was tried", 1)[1].splitlines()[1]
    assert file.read_text() == before
    assert run("dictionary", "verify", *pair, "--layer", "0", "--replace").exit_code == 0
    assert file.read_text() != before


def test_one_without_the_other(run) -> None:
    alone = run("dictionary", "verify", "--model", str(tiny.model_path()))
    assert alone.exit_code == 2
    assert "--dictionary" in alone.stderr
