"""`--json`: one object on one line, so that the outputs of several runs are JSON Lines."""

import json
import re
from pathlib import Path

import pytest

import monitor.cli
from monitor.cli.output import as_json
from monitor.v1 import monitor_pb2 as pb


def lines(output):
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("command", ["score", "generate"])
def test_an_answer_is_one_line(run, serve, command):
    address, *_ = serve()
    done = run(command, "--connect", address, "power\nand control", "--json")
    (answer,) = lines(done.stdout)
    assert answer["verdict"]["action"]


def test_answers_side_by_side_are_one_line_each(run, serve):
    address, *_ = serve()
    done = run("generate", "--connect", address, "power", "--compare", "11=-2,0,2", "--json")
    assert done.exit_code == 0, done.stderr
    assert len(lines(done.stdout)) == len(done.stdout.splitlines()) >= 2


def test_a_text_with_every_kind_of_line_end_stays_on_its_line():
    text = "a\nb\r\nc\u2028d\u2029e\x85f\x0bg\x0ch"
    assert json.loads(as_json(pb.GenerateResponse(text=text)))["text"] == text
    assert len(as_json(pb.GenerateResponse(text=text)).splitlines()) == 1


def test_no_command_prints_json_over_several_lines():
    """What is written to a file, or is a document by itself (the schema), may be indented."""
    printed = re.compile(r"echo\(json\w*\.dumps\([^\n]*indent=")
    for path in Path(monitor.cli.__file__).parent.rglob("*.py"):
        assert not printed.search(path.read_text()), path
