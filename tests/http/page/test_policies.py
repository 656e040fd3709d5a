"""Policies and drafts over real HTTP."""

import numpy as np
import pytest

from monitor.http.page.policies import _multiples
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockedRule, packed
from monitor.policy.fit.lengths import EDGES
from monitor.policy.policyset import PolicySet
from monitor.records import Action
from monitor.rpc.assembly import bundled_policies
from tests.http.page.conftest import faked
from tests.rpc.fake import policies, policy

PINNED = """apiVersion: monitor/v1
metadata:
  name: my-own
  title: "<script>alert(1)</script>"
  category: custom
  severity: low
  description: Reads one feature.
features:
  - {index: 158, weight: 1.0}
rules:
  - name: read
    threshold: 0.3
    action: alert
"""


def draft(text=PINNED, name="my-own", **more):
    return {"name": name, "text": text} | more


def test_about_says_what_runs(fake):
    about = fake.get("/api/about").json()
    assert about["model"] == "fake"
    assert about["encrypted"] is False
    assert [one["name"] for one in about["policies"]] == ["weapons", "deception"]
    assert (about["saves"], about["log"]) == (False, {"kept": False, "text": False, "readings": False})


def test_names_of_policies_that_are_script_stay_text():
    name = "<script>alert(1)</script>"
    with faked(PolicySet((policy(name, 7, Action.ALERT),), policies().digest)) as page:
        answer = page.get("/api/about")
        assert answer.json()["policies"][0]["name"] == name
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.slow
def test_a_policy_with_its_card(everything):
    one = everything.get("/api/policies/power-seeking").json()
    assert one["text"] == (bundled_policies() / "power-seeking.yaml").read_text()
    card = one["lock"]["card"]
    assert len(card["curves"]["policy"]) == len(one["lock"]["rates"])
    assert 0 < card["methods"]["policy"]["auroc"] <= 1
    assert one["lock"]["rules"]["stated"]["asked_rate"] == 0.01
    assert (one["draft"], one["evaluation"]) == (False, None)
    assert len(one["policy"]["rules"][0]["lengths"]) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none", "..", "%2e%2e%2fREADME", "a.yaml", "A", "locks"])
def test_policies_that_are_not_there(everything, name):
    assert everything.get(f"/api/policies/{name}").status_code == 404


@pytest.mark.slow
def test_problems_of_a_draft_have_their_line(everything, tiny):
    wrong = PINNED.replace("severity: low", "severity: extreme").replace("threshold: 0.3", "treshold: 0.3")
    found = everything.post("/api/drafts/check", draft(wrong)).json()["problems"]
    assert {one["line"] for one in found} >= {6, 12}
    assert all(one["file"] == "my-own.yaml" for one in found)
    assert not any("/tmp" in str(one) for one in found)
    assert everything.post("/api/drafts/check", draft()).json()["problems"] == []
    (misnamed,) = everything.post("/api/drafts/check", draft(name="other")).json()["problems"]
    assert "differs from the file's" in misnamed["message"]
    (none,) = everything.post("/api/drafts/check", draft(PINNED.replace("158", "99999"))).json()["problems"]
    assert none["line"] == 9
    assert everything.post("/api/drafts/check", draft("- [", name="a")).json()["problems"][0]["line"]
    assert not (tiny.overlay / "policies" / "my-own.yaml").exists()


@pytest.mark.slow
def test_a_bundled_policy_is_a_draft_without_problems_and_lacks_a_lock_once_its_concept_changes(everything):
    text = (bundled_policies() / "power-seeking.yaml").read_text()
    assert everything.post("/api/drafts/check", draft(text, "power-seeking")).json()["problems"] == []
    other = text.replace("name: power-seeking", "name: power-hungry")
    found = everything.post("/api/drafts/check", draft(other, "power-hungry")).json()["problems"]
    assert any("lock" in one["message"] or "fit" in one["hint"] for one in found)


@pytest.mark.slow
def test_a_draft_is_tried_on_texts(everything):
    asked = draft(texts=["I am an AI.", "It rains."], phase="response")
    found = everything.post("/api/drafts/try", asked).json()
    (ai,), (rain,) = (one["rules"] for one in found["results"])
    assert (ai["fired"], rain["fired"]) == (True, False)
    assert ai["score"] > ai["threshold"] == 0.3
    assert ai["tokens"][0]["features"] == [158]
    assert everything.post("/api/drafts/try", draft(texts=[])).status_code == 400
    assert everything.post("/api/drafts/try", draft("a: b", texts=["x"])).json()["problems"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {"name": "../up", "text": ""},
        {"name": "a", "text": "x" * (300 << 10)},
        {"name": "a", "text": "", "texts": ["x"] * 51},
        {"name": "a", "text": "", "phase": "both"},
        {"name": "a", "text": "", "folder": "/"},
        {"name": "a", "text": 3},
    ],
)
def test_requests_that_are_wrong_are_refused(everything, body):
    for path in ("check", "try", "save"):
        assert everything.post(f"/api/drafts/{path}", body).status_code == 400


@pytest.mark.slow
def test_a_draft_is_saved_beside_nothing_that_was_shipped(everything, tiny):
    before = {path: path.read_bytes() for path in bundled_policies().glob("*.yaml")}
    digests = everything.get("/api/about").json()["digests"]
    done = everything.post("/api/drafts/save", draft()).json()
    assert done == {"saved": True, "problems": [], "file": "policies/my-own.yaml"}
    (source,) = read_folder(tiny.overlay / "policies", None)
    assert source.model.metadata.name == "my-own"
    assert everything.get("/api/drafts").json()["drafts"] == ["my-own"]
    assert everything.get("/api/policies/my-own").json()["draft"]
    assert not everything.post("/api/drafts/save", draft("a: b")).json()["saved"]
    assert {path: path.read_bytes() for path in bundled_policies().glob("*.yaml")} == before
    assert everything.get("/api/about").json()["digests"] == digests


@pytest.mark.slow
def test_a_draft_takes_its_examples_along(everything, tiny):
    text = (bundled_policies() / "scams.yaml").read_text()
    assert everything.post("/api/drafts/save", draft(text, "scams")).json()["saved"]
    assert (tiny.overlay / "policies" / "scams.examples.jsonl").is_file()
    (tiny.overlay / "policies" / "scams.yaml").unlink()


def test_examples_from_other_folders_are_not_read(fake, tmp_path):
    text = PINNED.replace(
        "features:\n  - {index: 158, weight: 1.0}", "concept:\n  examples: ../../../etc/passwd.jsonl"
    )
    with faked(page_overlay=tmp_path / "overlay") as page:
        done = page.post("/api/drafts/save", draft(text)).json()
    assert not done["saved"]
    assert "cannot be '../../../etc/passwd.jsonl'" in str(done["problems"])


def test_how_far_positives_come_is_told_as_multiples_of_the_thresholds():
    lengths = [{"up_to": 48, "threshold": 2.0}, {"up_to": None, "threshold": 4.0}]
    # Three texts: one ends before the second range, one is strongest beyond 48 tokens, one reaches nothing.
    scores = np.full((3, len(EDGES) + 1), -np.inf, np.float32)
    scores[0, :1], scores[1, [0, 3]], scores[2, :] = 3.0, (1.0, 8.0), -1.0
    fields = {"threshold": lengths, "pooling": {"kind": "max"}, "benign_rate": 0.01, "benign_texts": 100}
    rule = LockedRule.model_validate(fields | {"held_out": packed(scores)})
    assert _multiples(rule) == [0.0, 1.5, 2.0]
    assert _multiples(LockedRule.model_validate(fields)) is None
    assert _multiples(LockedRule.model_validate(fields | {"held_out": packed(scores[:, :1])})) is None
    negative = fields | {"threshold": -1.0, "held_out": packed(scores)}
    assert _multiples(LockedRule.model_validate(negative)) is None
