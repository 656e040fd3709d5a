"""A server over a model whose passes run one request: it says so at the start, and dies as loudly as any other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.conftest import DEADLINE, connected, fails, generation
from tests.rpc.pairs import SILENT, small_scene


@pytest.mark.slow
def test_the_start_names_the_reason_and_a_failed_pass_ends_the_process(tmp_path: Path) -> None:
    flags = [
        f"--{name.replace('_', '-')}={value}" for name, value in small_scene(tmp_path, "falcon").flags.items()
    ]
    command = [sys.executable, "-m", "tests.rpc.dying", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said: list[str] = []
    try:
        assert process.stderr is not None
        address = ""
        while not address and (line := process.stderr.readline()):
            said.append(line)
            address = "".join(re.findall(r"^  grpc +(\S+)", line))
        assert address, "".join(said)
        with connected(address) as channel, fails("UNAVAILABLE"):
            asked = generation(SILENT, max_new_tokens=60)
            MonitorServiceStub(channel).Generate(pb.GenerateRequest(generation=asked), timeout=DEADLINE)
        said.append(process.communicate(timeout=60)[1])
    finally:
        process.kill()
        process.communicate()
    told = " ".join("".join(said).split())
    assert "every pass of this model runs one request" in told
    assert (
        "requests one in a pass, in turns: the attention of FalconForCausalLM cannot read the paged cache"
        in told
    )
    assert "planted" in told
    assert "the engine died" in told
    assert SILENT not in told
    assert process.returncode == 3
