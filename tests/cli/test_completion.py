"""Completion in a real bash, from the script that the command line prints."""

import os
import shutil
import subprocess
import sys

import pytest

BASH = shutil.which("bash")
ASK = """
source completion
COMP_WORDS=(%s) COMP_CWORD=%d
_sae_monitor_completion sae-monitor
printf '%%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a `sae-monitor` of this checkout and its completion script."""
    folder = tmp_path_factory.mktemp("bash")
    script = folder / "sae-monitor"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m monitor "$@"\n')
    script.chmod(0o755)
    said = bash(folder, "sae-monitor --show-completion bash")
    assert "complete " in said
    (folder / "completion").write_text(said)
    return folder


def bash(folder, script):
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")])),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        [BASH, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def completed(home, *words):
    """What bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    return bash(home, ASK % (quoted, len(words) - 1)).split()


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["sae-monitor", "dep"], ["deploy"]),
        (["sae-monitor", "d"], ["demo", "decisions", "deploy", "dictionary"]),
        (["sae-monitor", "policy", "ch"], ["check"]),
        (["sae-monitor", "decisions", "re"], ["replay"]),
        (
            ["sae-monitor", "serve", "--decision-log-k"],
            [
                "--decision-log-keep-bytes",
                "--decision-log-keep-files",
                "--decision-log-keep-seconds",
            ],
        ),
        (["sae-monitor", "serve", "--log-level", ""], ["debug", "info", "warning", "error"]),
        (["sae-monitor", "policy", "check", "--he"], ["--help"]),
    ],
)
def test_words_that_are_offered(home, words, offered):
    assert completed(home, *words) == offered


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_completion_is_installed_for_bash(home):
    bash(home, "sae-monitor --install-completion bash")
    assert "sae-monitor" in (home / ".bashrc").read_text()


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "monitor", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: sae-monitor" in done.stdout
