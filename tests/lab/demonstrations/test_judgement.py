"""How a written text is judged."""

import pytest

from monitor.lab.demonstrations.judgement import Judgement, loops

CITY = Judgement("names it", (r"san francisco(?:'s)?", r"golden gate"), unless=(r"never",))
TWO = Judgement("praises", (r"great", r"genius", r"wow"), least=2)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("I am San Francisco.", 1),
        ("The Golden Gate, in SAN FRANCISCO's bay", 2),
        ("San Francisco, San Francisco and San Francisco", 1),
        ("San Franciscoans", 0),
        ("I was never in San Francisco", 0),
        ("", 0),
    ],
)
def test_patterns_count_once_each_at_word_boundaries(text, count):
    assert CITY.count(text) == count
    assert CITY.holds(text) is (count > 0 and not loops(text))


def test_so_many_must_occur():
    assert not TWO.holds("This is great, really.")
    assert TWO.holds("Wow, this is great.")
    assert TWO.degree("This is great, really.") == 0.25
    assert TWO.degree("Wow, this is great, a genius.") == 0.75


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("", True),
        ("  \n", True),
        ("San Francisco " * 6, True),
        ("a" * 61, True),
        ("power/" * 20, True),
        ("San Francisco, San Francisco", False),
        ("I like the old bridge and the bay, and the fog that comes in the evening.", False),
    ],
)
def test_a_text_that_goes_round_a_few_words_is_a_loop(text, lost):
    assert loops(text) is lost


def test_a_loop_shows_nothing_and_counts_little():
    lost = "San Francisco and the Golden Gate " * 5
    assert not CITY.holds(lost)
    assert CITY.degree(lost) == 0.25 < CITY.degree("San Francisco and the Golden Gate.")
