"""What is known of a dictionary's features while a server runs."""

from dataclasses import replace

import pytest

from monitor.dictionary.cards import labels
from monitor.errors import InputError, NotFound
from monitor.http.page.feature_book import FeatureBook, counted_by, need_book
from monitor.lab.pair import open_pair
from monitor.policy.policy import WeightedFeature
from monitor.records import Clamp
from tests.policy.conftest import policy, rule

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def opened():
    return open_pair(device="cpu")


@pytest.fixture(scope="module")
def book(opened):
    return FeatureBook(opened.dictionary)


def test_a_feature_in_a_line(book, opened):
    found = book.brief(2508)
    assert found.feature == 2508
    assert found.label == book.labels.best(2508)
    assert found.maximum == pytest.approx(float(opened.dictionary.statistics.maximum[2508]))
    assert 0 < found.density < 1
    assert len(found.promoted) == 6
    with pytest.raises(NotFound):
        book.brief(4096)


def test_features_are_found_by_number_label_and_text(book):
    assert book.find("2508", 5)[0].feature == 2508
    found = book.find("power", 60)
    assert "power" in found[0].label.lower()
    told = ["power" in one.label.lower() for one in found]
    assert told == sorted(told, reverse=True)
    assert not all(told)  # some hold it in their contexts alone
    assert book.find("  ", 5) == book.find("no such words 0x7", 5) == []
    assert len(book.find("the", 7)) == 7


def test_cards_and_the_map(book):
    assert book.card(2508).feature == 2508
    points = book.neighbours(2508, 12)
    assert [points[0].brief.feature, points[0].cosine, len(points)] == [2508, 1.0, 13]
    cosines = [point.cosine for point in points]
    assert cosines == sorted(cosines, reverse=True)
    assert all(0 <= point.x <= 1 and 0 <= point.y <= 1 for point in points)


def test_own_labels_stand_above_those_beside_the_dictionary(opened, tmp_path):
    before = (opened.dictionary.path / labels.FILE).read_bytes()
    own = FeatureBook(opened.dictionary, tmp_path / "labels")
    automatic = own.brief(7).label
    assert own.rename(7, "  seven\tof <b>them</b>  ").label == "seven of <b>them</b>"
    assert own.brief(7).by_hand
    assert own.find("seven of", 3)[0].feature == 7
    assert FeatureBook(opened.dictionary, tmp_path / "labels").brief(7).label == "seven of <b>them</b>"
    assert own.rename(7, "").label == automatic
    assert (opened.dictionary.path / labels.FILE).read_bytes() == before


def test_labels_that_are_no_line_and_a_missing_folder_are_refused(book, opened, tmp_path):
    with pytest.raises(InputError, match="page_overlay"):
        book.rename(7, "a")
    own = FeatureBook(opened.dictionary, tmp_path)
    for text in ("a" * 201, "bell\x07", "right‮left"):
        with pytest.raises(InputError, match="one line"):
            own.rename(7, text)
    with pytest.raises(NotFound):
        own.rename(-1, "a")


def test_a_dictionary_without_cards_is_still_searched_by_label(opened, tmp_path):
    bare = FeatureBook(replace(opened.dictionary, path=tmp_path))
    assert (bare.cards, bare.card(3), bare.brief(3).promoted) == (None, None, ())
    assert bare.find("3", 5)[0].feature == 3


def test_what_policies_do_with_a_feature():
    one = policy(rule("a", features=((3, 2.0),)), clamps=(Clamp(3, -1.0), Clamp(4, -1.0)))
    other = policy(rule("b", features=((9, 1.0),), explains=(WeightedFeature(3, 0.5),)))
    found = [(each["how"], each["rule"], each["weight"]) for each in counted_by((one, other), 3)]
    assert found == [("reads", "a", 2.0), ("clamps", "", -1.0), ("explains", "b", 0.5)]
    with pytest.raises(NotFound, match="policies watch"):
        need_book(None)
