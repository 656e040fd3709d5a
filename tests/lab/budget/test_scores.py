"""What a set scores on requests is what its rules see in serving, in prompts and in responses."""

import numpy as np
import pytest

from monitor.errors import InputError, PolicyError
from monitor.lab.budget.requests import BenignRequest
from monitor.lab.budget.scores import score_set
from monitor.lab.policies import running_of
from monitor.lab.readings import PairReader
from monitor.policy.files.loader import load_policies
from monitor.policy.fit.lengths import EDGES
from monitor.records import Phase, TokenBlock
from tests.policy.policy_files import write_policy

HEAD = """\
apiVersion: monitor/v1
metadata: {name: NAME, title: T, category: c, severity: low, description: d}
"""
SIMPLE = """\
rules:
  - name: strong
    features: [{index: 25}, {index: 387, weight: -0.5}]
    pooling: {kind: ema, half_life: 4}
    threshold: [{up_to: 16, threshold: 0.12}, {up_to: null, threshold: 0.1}]
  - name: answers
    phases: [response]
    features: [{index: 25}]
    threshold: 0.3
"""
COMBINED = """\
conditions:
  asked: {phases: [prompt], features: [{index: 3529}], threshold: 0.3}
  told: {phases: [response], features: [{index: 25}], threshold: 0.3}
rules:
  - name: both
    when: {all: [asked, told]}
"""
TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it goes home to eat, sleep and dream.",
    "Why?",
    "def add(a, b):\n    return a + b\n\n\ndef multiply(a, b):\n    return a * b\n",
)


@pytest.fixture(scope="module")
def policies(opened, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    write_policy(folder, HEAD.replace("NAME", "simple") + SIMPLE, "simple")
    write_policy(folder, HEAD.replace("NAME", "combined") + COMBINED, "combined")
    running = running_of(opened)
    return load_policies(
        folder, dictionary_digest=running.dictionary, model_digest=running.model, features=running.features
    )


REQUESTS = [
    BenignRequest("prose", "a", TEXTS[0], either=True),
    BenignRequest("instructions", "b", ({"role": "user", "content": TEXTS[1]},)),
    BenignRequest("dialogue", "c", ({"role": "user", "content": TEXTS[1]},), TEXTS[0] * 4),
    BenignRequest("dialogue", "d", TEXTS[2], TEXTS[1]),
]


@pytest.fixture(scope="module")
def scores(opened, policies):
    return score_set(opened, policies, REQUESTS, lambda line: None)


def ids(pair, request):
    if isinstance(request.prompt, str):
        prompt = pair.ids(request.prompt)
    else:
        text = "Human: " + request.prompt[0]["content"] + "\n\nAssistant:"
        prompt = pair.ids(text)
    return prompt, pair.loaded.text.inner(request.response, continued=True) if request.response else []


def served(pair, policies, prompt, response):
    """Which rules fire, in which phase, as a server runs them."""
    rows = PairReader(pair).readings(prompt + response, policies.watch.features)
    running = policies.start(str, pair.loaded.text.special_ids)
    found = set()
    for phase, start, tokens in ((Phase.PROMPT, 0, prompt), (Phase.RESPONSE, len(prompt), response)):
        if tokens:
            block = TokenBlock(phase, start, tuple(tokens), rows[start : start + len(tokens)])
            found |= {(phase, one.policy, one.rule) for one in running.observe(block).detections}
    return found


def test_parts_are_prompts_and_responses(scores, opened):
    assert scores.responses.tolist() == [False, True, False, False, True, False, True]
    assert scores.sources.tolist() == [0, 0, 1, 2, 2, 3, 3]
    first, again = scores.requests[:2]
    assert first != again, "a text that may be either is two requests"
    assert scores.requests[3] == scores.requests[4]
    prompt, response = ids(opened, REQUESTS[2])
    assert (scores.lengths[3], scores.lengths[4]) == (len(prompt) - 1, len(response))
    assert np.array_equal(scores.best[0], scores.best[1])
    assert scores.lengths[0] > 16
    assert np.isinf(scores.best[2][:, 1:]).all()


def test_what_fires_is_what_fires_in_serving(scores, policies, opened):
    program = scores.program
    simple = {(program.owners[i].name, program.rules[i].name): n for n, i in enumerate(program.simple)}
    seen = set()
    for part, (source, response) in enumerate(zip(scores.sources, scores.responses, strict=True)):
        request = REQUESTS[source]
        prompt, said = ids(opened, request)
        if request.either and response:
            continue
        fired = served(opened, policies, prompt, said)
        phase = Phase.RESPONSE if response else Phase.PROMPT
        for (policy, name), check in simple.items():
            rule = program.rules[program.simple[check]]
            limits = [
                next(v for up, v in rule.lengths or ((None, rule.threshold),) if up is None or end <= up)
                for end in (*EDGES, 1e9)
            ]
            reaches = bool((scores.best[part, check] >= limits).any()) and phase in rule.phases
            assert reaches == ((phase, policy, name) in fired), (request, name)
            seen.add(reaches)
        both = bool(scores.combined[part].any())
        assert both == ((phase, "combined", "both") in fired)
        seen.add((both,))
    assert seen == {True, False, (True,), (False,)}


def test_a_conversation_that_the_chat_template_refuses_is_named(opened, policies):
    wrong = BenignRequest("dialogue", "page 7", ({"role": "robot", "content": "beep"},))
    with pytest.raises(InputError, match=r"a benign conversation \(group 'page 7'\): .*robot"):
        score_set(opened, policies, [wrong], lambda line: None)


def test_a_reading_that_is_no_number_ends_the_work(opened, policies, monkeypatch):
    columns = PairReader.columns
    monkeypatch.setattr(PairReader, "columns", lambda self, *given: columns(self, *given) * np.float32("nan"))
    with pytest.raises(PolicyError, match="NaN"):
        score_set(opened, policies, REQUESTS[:1], lambda line: None)
