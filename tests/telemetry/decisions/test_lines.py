"""A line says of itself whether it was written whole."""

import json
import random
import zlib

import pytest

from monitor.telemetry.decisions import lines

CONTENT = {"kind": "decision", "id": "a\nb\u2028", "score": 0.1, "text": "naïve \ud800"}


def line():
    return lines.seal(7, lines.body(CONTENT))


def test_a_line_is_one_json_object_that_any_tool_reads():
    raw = line()
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    plain = json.loads(raw)
    assert plain["seq"] == 7
    assert plain["text"] == "naïve ?"
    covered = raw[: raw.rindex(b',"crc32"')]
    assert plain["crc32"] == f"{zlib.crc32(covered):08x}"


def test_what_is_written_is_what_is_read():
    found = lines.decode(line()[:-1])
    assert found == {"seq": 7, **CONTENT, "text": "naïve ?"}
    assert lines.decode(lines.seal(1, lines.body({}))[:-1]) == {"seq": 1}


def test_every_cut_is_recognised():
    raw = line()[:-1]
    for end in range(len(raw)):
        with pytest.raises(lines.TornLine):
            lines.decode(raw[:end])


def test_every_changed_byte_is_recognised():
    raw, chance = line()[:-1], random.Random(5)
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1 << chance.randrange(8)
        with pytest.raises(lines.TornLine):
            lines.decode(bytes(changed))


def test_nan_is_refused():
    with pytest.raises(ValueError):
        lines.body({"score": float("nan")})
