"""Readings of a request as a record holds them."""

import json

import numpy as np
import pytest

from monitor.records import Failure, Phase, Probe, Signal, TokenBlock, WatchPlan
from monitor.telemetry.decisions import tokens


def test_readings_that_are_none_are_refused():
    for wrong in ({}, {"columns": [1], "blocks": [{"start": 0}]}, {"columns": [], "blocks": 3}):
        with pytest.raises(ValueError):
            tokens.from_json(wrong)


def test_columns_are_named():
    watch = WatchPlan((9, 3), (Probe("greed", (1.0, 2.0)),), (Signal.RESIDUAL_NORM,))
    assert tokens.column_names(watch) == [9, 3, "probe greed", "signal residual_norm"]


def test_what_is_not_zero_is_kept_exactly():
    readings = np.array([[0, 0.1], [0, 0], [-2.5, 1e-30]], np.float32)
    found = tokens.stretch(TokenBlock(Phase.PROMPT, 5, (7, 8, 7), readings), frozenset({7}))
    assert (found.start, found.tokens, found.special) == (5, 3, (5, 7))
    assert [(row, column) for row, column, _ in found.values] == [(0, 1), (2, 0), (2, 1)]
    assert np.array_equal(np.float32([value for *_, value in found.values]), readings[readings != 0])


def test_there_and_back():
    readings = np.array([[0.5, 0], [0, 0]], np.float32)
    part = tokens.stretch(TokenBlock(Phase.RESPONSE, 3, (7, 8), readings), frozenset({8}))
    failed = tokens.Stretch(Phase.RESPONSE, 5, 1, failure=Failure.GAP)
    content = json.loads(json.dumps(tokens.to_json([part, failed], [4, "probe a"])))
    assert content["blocks"][1] == {"failure": "gap"}
    columns, (block, failure) = tokens.from_json(content)
    assert columns == [4, "probe a"]
    assert failure is Failure.GAP
    assert (block.phase, block.start, block.token_ids) == (Phase.RESPONSE, 3, (tokens.PLAIN, tokens.SPECIAL))
    assert np.array_equal(block.readings, readings)


def test_no_token_id_is_kept():
    readings = np.ones((2, 1), np.float32)
    part = tokens.stretch(TokenBlock(Phase.PROMPT, 0, (123456, 654321), readings), frozenset({654321}))
    assert "123456" not in json.dumps(tokens.to_json([part], [0]))
    assert "654321" not in json.dumps(tokens.to_json([part], [0]))
