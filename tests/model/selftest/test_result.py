import pytest

from monitor.model.selftest.causes import ADVICE, Cause
from monitor.model.selftest.diagnosis import Suspect
from monitor.model.selftest.expected import Expected, ExpectedSource
from monitor.model.selftest.result import CHECKS, FailedCheck, SelfTest, suspect_line
from tests.model.selftest.numbers import FOUND, RECORD

PROBLEMS = (FailedCheck("l0", "L0 is 90; expected 30"), FailedCheck("bos", "there is no BOS"))


def outcome(*suspects, problems=PROBLEMS, source=ExpectedSource.RECORDED):
    return SelfTest(RECORD, Expected(source), (), problems, suspects)


def suspect(cause, what="as tried", off=0.5):
    return Suspect(cause, what, FOUND, off, off)


def test_it_passes_where_no_check_failed():
    assert outcome(problems=()).passed
    assert not outcome().passed


def test_every_check_is_told_with_its_outcome():
    assert outcome().checks == tuple((check, check not in ("l0", "bos")) for check in CHECKS)
    assert all(passed for _, passed in outcome(problems=()).checks)


def test_numbers_are_those_of_the_record():
    assert outcome().measured is FOUND


@pytest.mark.parametrize("source", ExpectedSource)
def test_the_source_is_said_in_words(source):
    words = outcome(source=source).source
    assert words
    assert words in outcome(source=source).explained()
    others = {outcome(source=other).source for other in ExpectedSource if other is not source}
    assert words not in others


def test_the_message_says_what_is_wrong_and_where():
    lines = outcome().explained().splitlines()
    assert lines[0].startswith(f"at {RECORD.place} ")
    assert lines[1:3] == ["  L0 is 90; expected 30", "  there is no BOS"]
    assert "to do" not in outcome().explained()


def test_the_message_names_three_causes_at_most_and_what_to_do_about_the_first():
    several = [suspect(cause) for cause in (Cause.LAYER, Cause.SCALING, Cause.TOPK, Cause.POINT)]
    text = outcome(*several).explained()
    assert "likely causes" in text
    for rank, one in enumerate(several[:3], 1):
        assert f"  {rank}. {suspect_line(one)}" in text
    assert f"{Cause.POINT}: " not in text
    assert text.endswith(f"to do: {ADVICE[Cause.LAYER]}")


@pytest.mark.parametrize(("off", "verdict"), [(1.0, "restores"), (1.01, "does not restore")])
def test_a_cause_is_told_with_what_its_experiment_gave(off, verdict):
    line = suspect_line(suspect(Cause.LAYER, "at blocks.3", off))
    assert line.startswith("wrong layer: at blocks.3: L0 30.0, explained variance 0.800, which " + verdict)


def test_a_cause_that_was_only_seen_has_no_numbers():
    line = suspect_line(Suspect(Cause.THRESHOLD, "all thresholds are 0", None, 0.9, 0.9))
    assert line.startswith("thresholds dropped: all thresholds are 0")
    assert "L0" not in line
