"""Features over real HTTP."""

import pytest

from monitor.dictionary.cards import labels
from monitor.pairs.tiny import dictionary_path

SCRIPT = "</title><script>alert(1)</script>"


def test_an_engine_that_shows_watched_features_only_says_so(fake):
    assert fake.get("/api/about").json()["features"] is None
    for path in (
        "/api/features?q=power",
        "/api/features/7",
        "/api/features/7/map",
        "/api/features/brief?f=7",
    ):
        answer = fake.get(path)
        assert answer.status_code == 404
        assert "features that policies watch" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_features_are_found_by_words(everything):
    found = everything.get("/api/features?q=power").json()["features"]
    assert "power" in found[0]["label"].lower()
    assert everything.get("/api/features?q=2508").json()["features"][0]["feature"] == 2508
    assert everything.get("/api/features?q=").json()["features"] == []
    assert everything.get(f"/api/features?q={'a' * 201}").status_code == 400


@pytest.mark.slow
def test_a_card_has_contexts_neighbours_and_what_policies_do(everything):
    one = everything.get("/api/features/2508").json()
    assert one["card"]["contexts"]
    assert one["card"]["promoted"]
    assert one["neighbours"][0]["cosine"] >= one["neighbours"][-1]["cosine"]
    counted = [(use["policy"], use["rule"], use["how"]) for use in one["counted_by"]]
    assert {("power-seeking", "stated", "reads"), ("power-seeking", "stated", "explains")} & set(counted)
    assert 0 < one["density"] < 1
    points = everything.get("/api/features/2508/map").json()["points"]
    assert (points[0]["feature"], len(points)) == (2508, 81)


@pytest.mark.slow
@pytest.mark.parametrize("feature", ["4096", "-1", "a", "1e3", "9" * 40, "%2e%2e"])
def test_features_that_are_not_there_are_refused(everything, feature):
    assert everything.get(f"/api/features/{feature}").status_code in (400, 404)


@pytest.mark.slow
def test_several_features_in_a_line_each(everything):
    found = everything.get("/api/features/brief?f=2508&f=3").json()["features"]
    assert [one["feature"] for one in found] == [2508, 3]
    assert len(found[0]["promoted"]) == 6
    many = "&".join("f=1" for _ in range(201))
    assert everything.get(f"/api/features/brief?{many}").status_code == 400


@pytest.mark.slow
def test_features_are_found_by_example_texts(everything):
    texts = ["I want more power.", "They seek power over us.", "Power is all I want."]
    others = ["It rains in the town.", "The cat sleeps.", "We ate bread and soup."]
    alike = everything.post("/api/features/examples", {"with": texts}).json()
    assert alike["how"] == "search"
    assert alike["features"][0]["fired"] == 3
    apart = everything.post("/api/features/examples", {"with": texts, "without": others}).json()
    assert apart["how"] == "contrast"
    assert apart["features"][0]["auroc_texts"] == 1.0
    for wrong in (
        {"with": []},
        {"with": ["a"], "without": ["b"]},
        {"with": ["a"] * 65},
        {"with": [" "]},
        {"other": []},
    ):
        assert everything.post("/api/features/examples", wrong).status_code == 400


@pytest.mark.slow
def test_a_label_is_kept_in_the_overlay_and_nowhere_else(everything, tiny):
    before = (dictionary_path() / labels.FILE).read_bytes()
    digests = everything.get("/api/about").json()["digests"]
    named = everything.post("/api/features/11/label", {"label": SCRIPT}).json()
    assert (named["label"], named["by_hand"]) == (SCRIPT, True)
    assert everything.get("/api/features/11").json()["label"] == SCRIPT
    assert everything.get("/api/features?q=%3Cscript").json()["features"][0]["feature"] == 11
    assert tiny.of("administers").post("/api/features/11/label", {"label": ""}).json()["by_hand"] is False
    (file,) = tiny.overlay.glob("labels/*/labels.json")
    assert digests["dictionary"].removeprefix("sha256:").startswith(file.parent.name)
    assert (dictionary_path() / labels.FILE).read_bytes() == before
    assert everything.get("/api/about").json()["digests"] == digests
    assert everything.post("/api/features/11/label", {"label": "a\x00b"}).status_code == 400
