"""The labeller: what it calls features whose behaviour is known."""

from __future__ import annotations

import pytest

from monitor.dictionary.labeller.background import Background
from monitor.dictionary.labeller.label_text import Meaning, read
from monitor.dictionary.labeller.labeller import Labeller
from monitor.dictionary.labeller.places import Window
from tests.dictionary.labeller.needs import needs_wordnet
from tests.dictionary.labeller.windows import place, tokens_of

CORPUS = (
    "the old house stood near the river and she walked to the town",
    "he said that the power of the king was great",
    "they moved from Boston to Chicago and then to Denver last year",
    "we saw the dog and the cat in the garden of the house",
    "she wants to sing and he likes to dance but they have to work",
    "it was raining when the train arrived at the station",
    "many people think that it is better to wait for the bus",
    "I paid $5 for it, and $7 for the other, he said",
)


@pytest.fixture(scope="module")
def labeller():
    return Labeller(Background(Window(tokens_of(text)[0]) for text in CORPUS * 5))


def label(labeller, *texts, silent=(), promoted=()):
    return labeller.label([place(t) for t in texts], [place(t) for t in silent], promoted)


def test_a_feature_of_one_word_is_called_by_it(labeller):
    texts = [
        "want more[ power] now",
        "it has[ power] to",
        "seek[ power] and",
        "my[ power] grew",
        "of[ power] he",
    ]
    assert label(labeller, *texts) == "“power”"


def test_names_are_spelt_as_names(labeller):
    texts = ["moved to[ Boston] again", "in[ Chicago] now", "near[ Boston] he", "a flat in[ Chicago] with"]
    assert label(labeller, *texts) == "Boston and Chicago"


def test_words_and_names_stand_together(labeller):
    texts = [
        "moved to[ Boston] again",
        "a[ train] he",
        "near[ Boston] he",
        "the[ train] with",
        "in[ Boston] or",
    ]
    assert label(labeller, *texts) == "“Boston” or “train”"


@needs_wordnet
def test_many_words_of_one_category_are_called_by_it(labeller):
    words = ("poodle", "sparrow", "horse", "goat", "salmon", "wolf", "cow", "bee")
    texts = [f"x{n} y{n}[ {word}] z{n}" for n, word in enumerate(words)]
    assert label(labeller, *texts).startswith("animals (")


def test_a_word_that_is_common_is_named_with_what_stands_before_it(labeller):
    texts = [
        f"{who} wanted[ to] {verb}"
        for who, verb in zip(["she", "he", "they", "we"], ["go", "eat", "run", "fly"], strict=True)
    ]
    assert label(labeller, *texts) == "“to” after “wanted”"


def test_words_after_a_word_are_called_that(labeller):
    texts = [f"he will raise[ {word}] here" for word in ("Alpha", "betas", "42", "gamma_x", "zz")]
    assert label(labeller, *texts) == "words after “raise”"


def test_a_place_near_where_the_feature_is_silent_makes_a_topic_a_poor_label(labeller):
    texts = [f"the flight{gap}[ leaves] soon" for gap in (" now", " that", " then", " also")]
    silent = [f"the flight{gap} leaves[ soon]" for gap in (" now", " that", " then", " also")]
    assert label(labeller, *texts, silent=silent) == "“leaves”"


def test_two_senses_make_two_clauses(labeller):
    texts = ["very[ likely] to", "most[ likely] so", "un known[ likely] it", "is[ likely] a"]
    texts += ["paid[ $]9 for", "got[ $]3 from", "has[ $]2 left", "lost[ $]1 on"]
    assert label(labeller, *texts) in ("“likely”; “$”", "“$”; “likely”", "“$” or “likely”", "“likely” or “$”")


def test_pieces_of_words_are_shown_as_pieces(labeller):
    texts = ["my[ Ant]onio is", "from[ Ant]arctica it", "the[ Ant]igone of", "an[ ant]hill on"]
    assert label(labeller, *texts).startswith("words beginning with “ant-” (")


def test_nothing_in_common_gives_no_label(labeller):
    assert label(labeller) is None
    mixed = ["a[ zyx] b1", "c[ 42] d", "“e”[ (] f", "g[ they] h", "k q[ ...] m p", "n\n[o] p u", "q1[ Q_q] Z"]
    assert label(labeller, *mixed) is None


def test_what_the_decoder_promotes_speaks_for_the_word_after(labeller):
    texts = [f"{word} of it[ {word}] ground" for word in ("common", "holy", "middle", "high")]
    assert "before “ground”" in label(labeller, *texts, promoted=[" ground"])


def test_how_common_a_label_is_counts_where_it_holds(labeller):
    share = labeller.common(read("“the”"))
    assert 0.05 < share < 0.3
    assert labeller.common(read("“the” after “of”")) < share
    assert labeller.common(read("“the”, often after “of”")) == share
    assert labeller.common(read("“the”; “and”")) > share
    assert labeller.common(Meaning(())) == 0.0
