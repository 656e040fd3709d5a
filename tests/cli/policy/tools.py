"""A fitted policy, folders of labelled files, and a way to run the commands."""

import json
from pathlib import Path

from typer.testing import CliRunner

from monitor.cli.app import app

SHIPPED = Path(__file__).parents[3] / "policies"


ROWS = 120


HALF = ("--train-fraction", 0.5)


def run(*arguments):
    """What became of `sae-monitor policy …`."""
    return CliRunner().invoke(app, ["policy", *map(str, arguments)])


def output_of(*arguments):
    """What a command that succeeds prints."""
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(text, label, group):
    return {"text": text, "label": label, "kind": "message", "group": group}


BOTH = """\
apiVersion: monitor/v1
metadata: {name: both, title: Both, category: scam, severity: low, description: A scam in a usual voice.}
concept: {examples: scams.examples.jsonl}
conditions:
  scam:
    pooling: ema
    threshold: {false_positive_rate: 0.05}
  strange:
    signal: residual_norm
    threshold: 1000.0
  answered:
    phases: [response]
    signal: residual_norm
    threshold: 0.0
rules:
  - name: usual
    when: {all: [scam, {not: strange}]}
  - name: later
    when: {all: [scam, answered]}
"""


ELSEWHERE = """\
apiVersion: monitor/v1
metadata: {name: elsewhere, title: Elsewhere, category: scam, severity: low, description: For another model.}
features: [{index: 999999}]
match: {models: ["*another*"]}
rules:
  - {name: seen, threshold: 1.0}
"""


LOUD = """\
apiVersion: monitor/v1
metadata: {name: loud, title: Loud, category: loud, severity: low, description: Any token at all.}
rules:
  - {name: any-token, signal: residual_norm, threshold: 0.0}
"""
