"""The pair that a command opens, and the test that its parts fit."""

from types import SimpleNamespace

import pytest
import structlog

from monitor.cli.opened_pair import opened_pair, told
from monitor.errors import SelfTestFailed


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the loader and of the self-test."""
    seen = []

    def open_pair(*given, **more):
        seen.append((given, more))
        return SimpleNamespace(loaded_pair="loaded")

    monkeypatch.setattr("monitor.lab.pair.open_pair", open_pair)
    monkeypatch.setattr("monitor.model.selftest.self_test.require_fit", seen.append)
    yield seen
    structlog.reset_defaults()


def test_the_pair_is_opened_as_the_flags_say_and_tested(asked, tmp_path):
    found = opened_pair("m", tmp_path, "saelens", "cpu", skip_self_test=False, measured=False)
    assert found.loaded_pair == "loaded"
    more = {"measured": False, "pair": None, "tell": told}
    assert asked == [(("m", tmp_path, "cpu", "saelens", "auto"), more), "loaded"]


def test_a_pair_is_opened_by_its_name(asked):
    opened_pair(None, None, None, "cpu", pair_name="mine", skip_self_test=False)
    assert asked[0][1]["pair"] == "mine"


def test_log_lines_of_what_is_opened_are_not_among_the_results(asked, capsys):
    opened_pair(None, None, None, "cpu", skip_self_test=False)
    structlog.get_logger().info("unpacking a file, once")
    said = capsys.readouterr()
    assert ("unpacking a file, once" in said.err, said.out) == (True, "")


def test_what_must_be_known_of_a_pair_goes_to_standard_error(capsys):
    told("x is the unquantised original of y " + "z" * 200)
    assert capsys.readouterr().err == "x is the unquantised original of y " + "z" * 200 + "\n"


def test_a_test_that_is_skipped_is_said(asked, capsys):
    opened_pair(None, None, None, "auto", skip_self_test=True)
    assert len(asked) == 1
    assert "self-test skipped" in capsys.readouterr().err


def test_parts_that_do_not_fit_are_no_pair(asked, monkeypatch):
    def refused(_):
        raise SelfTestFailed("they do not fit")

    monkeypatch.setattr("monitor.model.selftest.self_test.require_fit", refused)
    with pytest.raises(SelfTestFailed, match="do not fit"):
        opened_pair(None, None, None, "auto", skip_self_test=False)
