"""Requests made of benign texts: of every length that the texts give, as many as the tokens allow."""

from collections import Counter

import pytest

from monitor.lab.budget.requests import BenignRequest, RequestPlan, benign_requests
from monitor.policy.files.benign import BenignText

EDGES = (16, 48, 128, 512, 2048)
PLAN = RequestPlan(EDGES, sufficient=50, context=8192, most_tokens=10**9)


def words(text):
    return len(text.split())


def book(number, size=6000):
    return BenignText("prose", " ".join(f"w{number:03}x{i:05}" for i in range(size)), group=f"book {number}")


def lengths(found, plan=PLAN):
    return Counter(plan.length(one.tokens) for one in found)


def test_long_texts_give_pieces_of_every_length():
    found = benign_requests([book(i) for i in range(120)], PLAN, words)
    counts = lengths(found)
    assert all(counts[n] >= 50 for n in range(6)), counts
    assert max(counts.values()) <= 100
    assert all(abs(words(_said(one)) - one.tokens) <= 2 for one in found)
    assert benign_requests([book(i) for i in range(120)], PLAN, words) == found


def _said(request):
    return request.prompt if isinstance(request.prompt, str) else request.prompt[0]["content"]


def test_pieces_of_one_text_do_not_overlap_and_stay_in_its_group():
    found = benign_requests([book(1)], PLAN, words)
    seen = [word for one in found for word in _said(one).split()]
    assert len(seen) == len(set(seen))
    assert {one.group for one in found} == {"book 1"}


def test_short_texts_are_whole():
    texts = [BenignText("instructions", f"Name {i} things that fly", group=str(i)) for i in range(40)]
    found = benign_requests(texts, PLAN, words)
    assert sorted(_said(one) for one in found) == sorted(text.text for text in texts)
    assert not any(one.either or one.response for one in found), "nobody answers with an instruction"
    turns = [one for one in found if not isinstance(one.prompt, str)]
    assert 8 < len(turns) < 32, "some as a user's turn, some as they are"


def test_prose_is_a_prompt_and_may_be_a_response():
    found = benign_requests([book(i, 30) for i in range(60)], PLAN, words)
    assert all(one.either == isinstance(one.prompt, str) for one in found)
    assert {one.either for one in found} == {True, False}
    plain = benign_requests([book(i, 30) for i in range(60)], RequestPlan(EDGES, 50, 512, turns=False), words)
    assert all(one.either for one in plain)


@pytest.mark.parametrize("turns", [True, False])
def test_a_conversation_is_a_prompt_with_its_response(turns):
    messages = (
        {"role": "user", "content": "Why is the sky blue?"},
        {"role": "assistant", "content": "Because air scatters blue light more than red."},
    )
    plan = RequestPlan(EDGES, 50, 512, turns=turns)
    (one,) = benign_requests([BenignText("dialogue", messages=messages, group="g")], plan, words)
    prompt = messages[:1] if turns else "Why is the sky blue?"
    assert one == BenignRequest("dialogue", "g", prompt, messages[1]["content"], tokens=13)
    asked = BenignText("dialogue", messages=messages[:1])
    assert benign_requests([asked], plan, words)[0].response == ""


def test_tokens_go_to_the_short_lengths_first_and_never_to_a_length_that_stays_too_few():
    plan = RequestPlan(EDGES, sufficient=200, context=8192, most_tokens=800_000)
    wanted = plan.wanted(kinds=4)
    assert wanted[:4] == [400, 400, 400, 300]
    assert wanted[4] * 4 >= 200 > wanted[5]
    assert RequestPlan(EDGES, 200, 8192, most_tokens=30_000).wanted(4)[3:] == [0, 0, 0]
    found = benign_requests([book(i) for i in range(60)], RequestPlan(EDGES, 50, 8192, 20_000), words)
    assert sum(one.tokens for one in found) < 25_000


def test_nothing_is_longer_than_the_context():
    plan = RequestPlan(EDGES, sufficient=50, context=256, most_tokens=10**9)
    found = benign_requests([book(i) for i in range(60)], plan, words)
    assert max(one.tokens for one in found) <= 256
    assert plan.wanted(1)[4:] == [0, 0]
    assert lengths(found, plan)[3] >= 50
