import pytest

from monitor.policy.files.cases import Case, read_tests, run_case
from monitor.policy.files.source import read_source
from monitor.policy.files.yaml_document import PolicyProblems
from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.explain import explain
from monitor.policy.schema.expression import AllOf
from monitor.policy.schema.policy import Match
from monitor.records import Phase, Probe, Signal
from tests.policy.conftest import block, policy, rule, word
from tests.policy.policy_files import PINNED, write_policy

TWO = policy(rule("low", threshold=0.3), rule("high", features=((5, 1.0), (6, -1.0)), threshold=2.0))


def case(**fields):
    return Case.model_validate({"name": "n", **fields})


@pytest.mark.parametrize(
    ("readings", "fires", "passed"),
    [
        ({"3": [0, 0.4]}, ["low"], True),
        ({"3": [0, 0.4]}, [], False),
        ({"3": [0.4, 0]}, [], True),
        ({"all": [0, 2]}, ["low"], True),
        ({"positive": [0, 2]}, ["high", "low"], True),
        ({"3": [0, 0.4], "5": [0, 3]}, ["low"], False),
    ],
)
def test_cases_on_readings(readings, fires, passed):
    assert run_case(TWO, case(readings=readings, fires=fires), None).passed is passed


def test_cases_on_texts_count():
    def read(text, response, features):
        assert not response
        found = block([[0.0] * len(features), [float(text)] * len(features)]).readings
        return found, found[:0]

    texts = ["0", "0.1", "0.5", "0.6"]
    assert run_case(TWO, case(texts=texts, fires=["low"]), None) is None
    assert not run_case(TWO, case(texts=texts, fires=["low"]), read).passed
    assert run_case(TWO, case(texts=texts, fires=["low"], at_least=2), read).passed
    assert not run_case(TWO, case(texts=texts, fires=[], at_most=1), read).passed
    assert run_case(TWO, case(texts=texts, fires=[], at_most=2), read).passed


def test_what_could_not_be_scored_is_not_quiet():
    found = run_case(TWO, case(readings={"all": [0, 1e300]}, fires=[]), None)
    assert (found.passed, found.detail) == (False, "fired: (could not be scored)")


def test_a_feature_that_no_rule_reads_is_refused():
    with pytest.raises(PolicyProblems, match="no rule reads `8`"):
        run_case(TWO, case(readings={"8": [0, 1.0]}, fires=[]), None)


@pytest.mark.parametrize(
    ("cases", "word"),
    [
        ("- {name: a, fires: [stated]}", "either `readings:` or `texts:`"),
        ("- {name: a, texts: [x], fires: [other]}", "there is no rule `other`"),
        ("- {name: a, texts: [x], fires: [], at_least: 1}", "at_most"),
        ("- {name: a, readings: {all: [1], '3': [1, 2]}, fires: []}", "equally long"),
        ("- {name: a, texts: [], fires: []}", "must not be empty"),
        ("- {name: a, readings: {all: []}, fires: []}", "no token is read"),
        ("- {name: a, readings: {all: [1]}, fires: []}", "no token is read"),
        ("[]", "must not be empty"),
        ("- {name: a, readings: {all: [0, 1]}, fires: [stated], at_least: 1}", "`at_least` counts texts"),
        ("- {name: a, readings: {all: [0, 1]}, fires: [], at_most: 1}", "`at_most` counts texts"),
        (
            "- {name: a, texts: [x, y], fires: [stated], at_least: 3}",
            "there are 2 texts here; write 2 at most",
        ),
        ("- {name: a, texts: [x, y], fires: [], at_most: 2}", "write 1 at most"),
        ("- {name: a, texts: [x], fires: [stated, stated]}", "`stated` stands here twice"),
        (
            "- {name: a, texts: [x], fires: []}\n  - {name: a, texts: [y], fires: []}",
            "a second case has this name",
        ),
        ("- {name: a, readings: {}, fires: []}", "must not be empty"),
        ("- {name: a, texts: [x], response_readings: {all: [1]}, fires: []}", "needs `readings:`"),
        ("- {name: a, readings: {all: [0, 1]}, response_readings: {all: []}, fires: []}", "no token is read"),
        (
            "- {name: a, readings: {all: [0, 1]}, response_readings: {all: [0], '3': [1, 2]}, fires: []}",
            "equally long",
        ),
        (
            "- {name: a, readings: {all: [0, 1]}, response_readings: {all: [0]}, phase: response, fires: []}",
            "`phase` does not go with a prompt and a response",
        ),
        (
            "- {name: a, texts: [{prompt: x, response: y}], phase: prompt, fires: []}",
            "`phase` does not go with",
        ),
        ("- {name: a, texts: [{prompt: x}], fires: []}", "`cases[0].texts[0].response` is missing"),
        ("- {name: a, texts: [{prompt: x, reponse: y}], fires: []}", "did you mean `response`?"),
    ],
)
def test_test_files_are_checked_like_policies(tmp_path, cases, word):
    source = read_source(write_policy(tmp_path, PINNED), None)
    with pytest.raises(PolicyProblems, match="has no test"):
        read_tests(source)
    (tmp_path / "greed.test.yaml").write_text(f"apiVersion: monitor/v1\npolicy: greed\ncases:\n  {cases}\n")
    with pytest.raises(PolicyProblems) as caught:
        read_tests(source)
    assert word in str(caught.value)
    assert caught.value.problems[0].line >= 3


def test_an_explanation_agrees_with_the_rules():
    readings = block([[9, 9, 9], [0.1, 1, 0], [0.5, 2, 0.5], [0.2, 0, 0]]).readings
    found = explain((TWO,), readings, Phase.PROMPT)
    observer = PolicySet((TWO,), "").start(word)
    fired = {d.rule for d in observer.observe(block(readings)).detections}
    assert {e.rule.name for e in found if e.fired} == fired == {"low"}
    low = found[0]
    assert low.rule.name == "low"
    assert low.score == pytest.approx(0.5)
    assert [(t.position, t.features[0].feature) for t in low.tokens] == [(2, 3), (3, 3), (1, 3)]


def test_cases_name_probes_signals_and_conditions_whoever_the_policy_is_bound_to():
    one = policy(
        rule("probed", features=(), probe=Probe("p", (1.0,)), threshold=0.5),
        rule("odd", features=(), signal=Signal.RESIDUAL_NORM, threshold=3.0),
        rule("both", features=(), threshold=0.0, when=AllOf(all=["a", "b"])),
        conditions=tuple(
            Condition(n, features=(WeightedFeature(i, 1.0),), threshold=0.5) for i, n in enumerate("ab")
        ),
        match=Match(callers=["nobody"]),
    )
    for readings, fires in (
        ({"probe": [0, 1]}, ["probed"]),
        ({"residual_norm": [0, 4]}, ["odd"]),
        ({"0": [0, 1], "1": [0, 0]}, []),
        ({"0": [0, 1, 0], "1": [0, 0, 1]}, ["both"]),
        ({"all": [0, 1]}, ["probed", "both"]),
    ):
        assert run_case(one, case(readings=readings, fires=fires), None).passed
    with pytest.raises(PolicyProblems, match="no rule reads `reconstruction_error`"):
        run_case(one, case(readings={"reconstruction_error": [0, 0]}, fires=[]), None)


ANSWERED = policy(
    rule("answered", features=(), phases=(Phase.RESPONSE,), threshold=0.0, when=AllOf(all=["asked", "told"])),
    conditions=(
        Condition("asked", features=(WeightedFeature(0, 1.0),), threshold=0.5, phases=(Phase.PROMPT,)),
        Condition("told", features=(WeightedFeature(1, 1.0),), threshold=0.5, phases=(Phase.RESPONSE,)),
    ),
)


@pytest.mark.parametrize(
    ("asked", "told", "fires"), [(1, 1, ["answered"]), (0, 1, []), (1, 0, []), (0, 0, [])]
)
def test_a_rule_of_the_response_that_rests_on_the_prompt_can_be_tested(asked, told, fires):
    given = {"readings": {"0": [0, asked]}, "response_readings": {"1": [0, told, 0]}}
    assert run_case(ANSWERED, case(**given, fires=fires), None).passed

    def read(prompt, response, plan):
        found = block([[0.0, 0.0], [float(prompt), 0.0], [0.0, float(response)]]).readings
        return found[:2], found[2:]

    texts = [{"prompt": str(asked), "response": str(told)}]
    assert run_case(ANSWERED, case(texts=texts, fires=fires), read).passed


def test_position_0_of_a_response_is_read():
    given = {"readings": {"0": [0, 1]}, "response_readings": {"1": [1]}}
    assert run_case(ANSWERED, case(**given, fires=["answered"]), None).passed
