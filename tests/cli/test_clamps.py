import pytest
import typer

from monitor.cli.clamps import clamp_text, parse_clamp
from monitor.v1 import monitor_pb2 as pb


@pytest.mark.parametrize(
    ("text", "clamp"),
    [
        ("12=-0.5", pb.Clamp(feature=12, target=-0.5)),
        ("0=0", pb.Clamp(feature=0, target=0)),
        ("7=1e-3@active", pb.Clamp(feature=7, target=0.001, where=pb.CLAMP_WHERE_ACTIVE)),
        ("7=-2@everywhere", pb.Clamp(feature=7, target=-2, where=pb.CLAMP_WHERE_EVERYWHERE)),
        ("4294967295=1", pb.Clamp(feature=2**32 - 1, target=1)),
    ],
)
def test_reads_what_the_help_says(text, clamp):
    assert parse_clamp(text) == clamp


@pytest.mark.parametrize("text", ["12=-0.5", "7=0.001@active", "7=-2@everywhere"])
def test_prints_as_it_is_typed(text):
    assert clamp_text(parse_clamp(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("12", "FEATURE=VALUE"),
        ("", "FEATURE=VALUE"),
        ("=1", "'' in '=1' is not the index of a feature"),
        ("-1=1", "'-1' in '-1=1' is not the index"),
        ("power=1", "'power'"),
        ("²=1", "'²'"),
        ("4294967296=1", "not the index"),
        ("1=nan", "'nan' in '1=nan' is not a finite number"),
        ("1=-inf", "not a finite number"),
        ("1=1e400", "not a finite number"),
        ("1=", "not a finite number"),
        ("1=1=2", "not a finite number"),
        ("1=1@", "neither 'active' nor 'everywhere'"),
        ("1=1@always", "'always' in '1=1@always' is neither"),
    ],
)
def test_says_what_is_wrong(text, said):
    with pytest.raises(typer.BadParameter) as caught:
        parse_clamp(text)
    assert said in caught.value.message
