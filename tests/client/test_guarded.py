"""What a guard says of an answer, read with types."""

import pytest

from monitor.client.guarded import Unmonitored, guarded_verdict

SAID = {
    "request_id": "r",
    "status": "unknown",
    "action": "alert",
    "matched": True,
    "mode": "end",
    "released_unread": 3,
    "verdicts": [{"failure": "incomplete", "detections": [{"policy": "p"}, {"policy": "p"}]}],
}


def test_a_verdict_is_read():
    found = guarded_verdict({"choices": [], "sae_monitor": SAID})
    assert (found.status, found.action, found.policies, found.failures) == (
        "unknown",
        "alert",
        ("p",),
        ("incomplete",),
    )
    assert (found.mode, found.released_unread, found.clean) == ("end", 3, False)
    assert guarded_verdict({"sae_monitor": SAID | {"status": "checked", "matched": False}}).clean


@pytest.mark.parametrize("answer", [{}, {"sae_monitor": {"detections": []}}])
def test_an_answer_without_a_verdict_is_not_taken_for_a_clean_one(answer):
    with pytest.raises(Unmonitored):
        guarded_verdict(answer)
