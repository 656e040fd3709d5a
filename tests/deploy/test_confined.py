"""The conditions of the image without an engine: a read-only root, no capabilities, and another user where possible."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.deploy.processes import free_port, wait_for
from tests.deploy.tools import DEPLOY

USER = "10001"
DROPPED = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
SCRIPT = """
set -e
mount --make-rprivate /
mount --bind "$STATE" /mnt
mount -o remount,ro,bind /
exec setpriv "$@"
"""


@pytest.fixture
def state(tmp_path):
    """A folder that the confined process sees as /mnt and may write to."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def confined(state, *command):
    """A command that runs on a read-only root."""
    environment = {"PATH": os.environ["PATH"], "STATE": str(state), "HOME": "/mnt", "TMPDIR": "/mnt"}
    environment |= {"STATE_DIRECTORY": "/mnt", "HF_HOME": "/mnt/hub", "PYTHONDONTWRITEBYTECODE": "1"}
    full = ["unshare", "-m", "bash", "-c", SCRIPT, "confined", *command]
    return subprocess.Popen(
        full, env=environment, cwd=DEPLOY.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def output(process):
    text, _ = process.communicate(timeout=60)
    return process.returncode, text


def possible(state):
    """Options of setpriv that work here; skips where none do."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("needs root, unshare and setpriv")
    other = ["--reuid", USER, "--regid", USER, "--clear-groups", *DROPPED]
    probe = [
        sys.executable,
        "-c",
        "import os, sys; open('/mnt/probe', 'w'); sys.exit(os.access('/', os.W_OK))",
    ]
    for options in (other, DROPPED):
        code, text = output(confined(state, *options, *probe))
        if code == 0:
            (state / "probe").unlink()
            return options
    pytest.skip(f"cannot make a read-only root here: {text.strip()[-200:]}")


@pytest.mark.slow
def test_it_serves_and_stops_on_a_read_only_root_without_capabilities(state):
    options = possible(state)
    address = f"127.0.0.1:{free_port()}"
    serve = [sys.executable, "-m", "monitor", "serve", "--listen", address]
    process = confined(state, *options, *serve, "--metrics-listen", f"127.0.0.1:{free_port()}")
    try:
        check = [sys.executable, DEPLOY / "healthcheck.py", address]

        def healthy():
            assert process.poll() is None, process.stdout.read()
            return subprocess.run(check, capture_output=True, check=False).returncode == 0

        wait_for("SERVING", healthy, 90)
    finally:
        process.send_signal(signal.SIGTERM)
        code, text = output(process)
        sys.stdout.write(text)
    assert code == 0
    assert "stopping" in text
    written = {path.relative_to(state).parts[0] for path in state.rglob("*") if path.is_file()}
    assert written <= {"decisions", "hub", ".cache"}, written
