"""The conditions of the image without an engine: a read-only root, no capabilities, and another user where possible."""

import os
import shutil
import signal
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

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


def confined(state, log, *command):
    """A command that runs on a read-only root, and writes what it says into a file, so that it never waits for us."""
    environment = {"PATH": os.environ["PATH"], "STATE": str(state), "HOME": "/mnt", "TMPDIR": "/mnt"}
    environment |= {"STATE_DIRECTORY": "/mnt", "HF_HOME": "/mnt/hub", "PYTHONDONTWRITEBYTECODE": "1"}
    full = ["unshare", "-m", "bash", "-c", SCRIPT, "confined", *command]
    with log.open("wb") as output:
        return subprocess.Popen(
            full, env=environment, cwd=DEPLOY.parent, stdout=output, stderr=subprocess.STDOUT
        )


def ended(process, seconds=80):
    """The exit status; a process that does not end is killed, and the test fails."""
    try:
        return process.wait(seconds)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def possible(state, log):
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
        if ended(confined(state, log, *options, *probe)) == 0:
            (state / "probe").unlink()
            return options
    pytest.skip(f"cannot make a read-only root here: {log.read_text().strip()[-200:]}")


@pytest.mark.slow
def test_it_serves_and_stops_on_a_read_only_root_without_capabilities(state, tmp_path):
    log = tmp_path / "said"
    options = possible(state, log)
    address = f"127.0.0.1:{free_port()}"
    serve = [sys.executable, "-m", "monitor", "serve", "--pair", "tiny", "--listen", address]
    process = confined(state, log, *options, *serve, "--metrics-listen", f"127.0.0.1:{free_port()}")
    try:

        def healthy():
            assert process.poll() is None, log.read_text()
            with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
                try:
                    asked = health_pb2.HealthCheckRequest()
                    return health_pb2_grpc.HealthStub(channel).Check(asked, timeout=10).status == 1
                except grpc.RpcError:
                    return False

        wait_for("SERVING", healthy, 200)
        check = [sys.executable, DEPLOY / "healthcheck.py", address]
        assert subprocess.run(check, capture_output=True, check=False, timeout=60).returncode == 0
    finally:
        process.send_signal(signal.SIGTERM)
        code = ended(process)
        sys.stdout.write(log.read_text())
    assert code == 0
    assert "stopping" in log.read_text()
    written = {path.relative_to(state).parts[0] for path in state.rglob("*") if path.is_file()}
    assert written <= {"decisions", "hub", ".cache"}, written
