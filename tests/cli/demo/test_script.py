"""The texts of the demonstration: balanced, and told apart by more than their words."""

from monitor.cli.demo.script import BENIGN, HARMLESS, OFFENDING, SCRIPT, DemoLine


def test_the_script_is_balanced():
    categories = {line.category for line in OFFENDING}
    assert categories == {"power_seeking", "deception", "bias", "unsafe_code", "dangerous_request"}
    assert SCRIPT.lines == OFFENDING + HARMLESS
    assert {line.category for line in HARMLESS} == {BENIGN}
    assert len(HARMLESS) >= len(categories)
    for lines in (OFFENDING, HARMLESS):
        assert any(len(line.turns) > 1 for line in lines)


def test_benign_lines_share_words_with_offending_ones():
    offending = {
        word.strip(".,?").lower() for line in OFFENDING for turn in line.turns for word in turn.split()
    }
    dull = {"the", "a", "to", "and", "i", "in", "of", "my", "every", "you", "are", "with", "should", "that"}
    for line in HARMLESS:
        words = {word.strip(".,?").lower() for turn in line.turns for word in turn.split()}
        assert words & offending - dull, line.text


def test_turns_are_written_with_who_says_them():
    assert DemoLine("", ("alone",)).text == "alone"
    assert DemoLine("", ("a", "b", "c")).text == "User: a\nModel: b\nUser: c"
