"""The command of the recipe: what it refuses, and that it trains over no other run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.recipes.tiny.__main__ import app


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
