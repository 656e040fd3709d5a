"""`sae-monitor decisions`: what it lists, shows, checks and replays."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_reading_needs_no_torch():
    code = (
        "import sys, typer.testing; from monitor.cli.app import app\n"
        "done = typer.testing.CliRunner().invoke(app, ['decisions', 'tail', '--help']); assert done.exit_code == 0\n"
        "import monitor.cli.decisions.filter\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
