"""`generate --compare`, what becomes of clamps in words, and refusals."""

import pytest
import typer

from monitor.cli.show.side_by_side import parse_compare
from monitor.cli.show.verdict import refusal_line, suppression_lines
from monitor.v1 import monitor_pb2 as pb


def test_a_feature_at_several_values():
    found = parse_compare("12=-2,0,5@everywhere").clamps
    assert [(clamp.feature, clamp.target, clamp.where) for clamp in found] == [
        (12, target, pb.CLAMP_WHERE_EVERYWHERE) for target in (-2, 0, 5)
    ]


@pytest.mark.parametrize(
    "text", ["12", "12=", "x=1", "12=1,1", "12=1,,2", "12=1,nan", "12=" + ",".join("123456789"), "1=1@x"]
)
def test_what_is_no_comparison_is_said(text):
    with pytest.raises(typer.BadParameter):
        parse_compare(text)


def test_every_value_is_asked_for_beside_none(run, serve):
    address, _, service = serve()
    done = run("generate", "Tell me why", "--connect", address, "--compare", "11=-2,0,5", "--clamp", "7=-1")
    assert done.exit_code == 0
    asked = [[(clamp.feature, clamp.target) for clamp in sent.clamps] for sent in service.requests]
    assert asked == [[(7, -1)], [(7, -1), (11, -2)], [(7, -1), (11, 0)], [(7, -1), (11, 5)]]
    for word in ("as it is", "at -2", "at 0", "at 5", "feature 11"):
        assert word in done.stdout


def test_a_comparison_is_saved_as_a_picture(run, serve, tmp_path):
    address, _, _ = serve()
    path = tmp_path / "compare.svg"
    assert (
        run("generate", "Tell me why", "--connect", address, "--compare", "11=5", "--svg", path).exit_code
        == 0
    )
    picture = path.read_text()
    assert picture.startswith("<svg")
    assert "at&#160;5" in picture


def test_dropping_the_error_term_is_sent_with_clamps_and_needs_them(run, serve):
    address, _, service = serve()
    run("generate", "Tell me why", "--connect", address, "--clamp", "7=-1", "--drop-error-term")
    assert service.requests[0].clamps[0].error_term == pb.ERROR_TERM_DROP
    assert "needs --clamp" in run("generate", "x", "--connect", address, "--drop-error-term").stderr


def test_what_became_of_clamps():
    held = pb.Suppression(policy="a", tokens_edited=3, before=2, after=0.1, held_at_layer=True, held=True)
    back = pb.Suppression(
        policy="b",
        tokens_edited=3,
        before=2,
        after=0.1,
        probe_score=1.5,
        probe_threshold=1,
        held_at_layer=True,
        came_back=True,
    )
    left = pb.Suppression(policy="c", tokens_edited=3, before=2, after=1)
    lines = [line.plain for line in suppression_lines([held, back, left])]
    assert lines == [
        " HELD   a suppressed: 3 tokens edited, reading 2.00 → 0.10 at the layer",
        " CAME BACK   b suppressed: 3 tokens edited, reading 2.00 → 0.10 at the layer, later probe 1.50 of 1.00",
        " NOT GONE   c suppressed: 3 tokens edited, reading 2.00 → 1.00 at the layer",
    ]


def test_a_refusal_is_shown_and_cannot_move_the_cursor():
    assert refusal_line("") is None
    assert "\x1b" not in refusal_line("no\x1b[2J").plain
