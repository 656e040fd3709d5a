"""The budget of a set as it is written down: what it says of a policy, and what it does not hold for."""

import json

import pytest

from monitor.policy.files.lint import check_folder
from monitor.policy.files.loader import load_policies, read_folder
from monitor.policy.files.lock import LockModel, as_written, lock_text
from monitor.policy.files.set_budget import (
    BUDGET_FILE,
    MeasuredRate,
    SetBudget,
    budget_notes,
    budgeted,
    budgeted_sources,
    read_budget,
    thresholds_digest,
    write_budget,
)
from monitor.policy.files.yaml_document import PolicyProblems
from tests.policy.policy_files import (
    DICTIONARY,
    EXAMPLES,
    MODEL,
    NOTHING,
    PAIR,
    PINNED,
    lock_for,
    write_concept,
    write_policy,
)

EDGES = [16, 48, 128, 512, 2048]


def rate(phase, kind, low, up, texts, fired, **more):
    interval = {
        "low": max(0.0, fired / max(texts, 1) - 0.005),
        "high": min(1.0, fired / max(texts, 1) + 0.01),
    }
    return MeasuredRate(
        phase=phase, kind=kind, longer_than=low, up_to=up, texts=texts, fired=fired, **interval, **more
    )


def enough(phase, kinds, context):
    """Rates of all lengths and kinds, with texts enough."""
    yield rate(
        phase, "any", 0, None, 2000, 12, by_policy={"greed": 8, "loud": 5}, alone={"greed": 7, "loud": 4}
    )
    for low, up in zip((0, *EDGES), (*EDGES, None), strict=True):
        if low < context:
            yield rate(phase, "any", low, up, 400, 3)
    for kind in kinds:
        yield rate(phase, kind, 0, None, 500, 3)


@pytest.fixture
def folder(tmp_path):
    """A fitted policy and one with a threshold of its own."""
    write_concept(tmp_path)
    write_policy(tmp_path, PINNED.replace("name: greed", "name: loud"), "loud")
    return tmp_path


def place(folder):
    """The folder of the locks."""
    return folder / "locks" / PAIR


def made(folder, **changed):
    sources = read_folder(folder, PAIR)
    kinds = ("dialogue", "instructions", "prose", "code")
    return SetBudget.model_validate(
        {
            "model": {"name": "m", "digest": MODEL},
            "dictionary": {"digest": DICTIONARY, "features": 100},
            "rate": 0.01,
            "context": 512,
            "sufficient": 200,
            "shared": True,
            "benign": NOTHING,
            "edges": EDGES,
            "policies": {source.model.metadata.name: budgeted(source) for source in sources},
            "rates": [*enough("prompt", kinds, 512), *enough("response", kinds[:1] + kinds[2:], 512)],
            **changed,
        }
    )


def notes(budget, folder):
    return list(budget_notes(budget, read_folder(folder, PAIR)))


def test_a_budget_that_holds_for_everything_has_nothing_to_say(folder):
    assert notes(made(folder), folder) == []


def test_it_is_read_as_it_was_written(folder):
    budget = made(folder)
    path = write_budget(place(folder), budget)
    assert path.name == BUDGET_FILE
    assert read_budget(place(folder)) == SetBudget.model_validate(
        as_written(budget.model_dump(by_alias=True))
    )
    assert len(path.read_text().splitlines()) < 120, "a rate stands in one line"
    assert [source.model.metadata.name for source in read_folder(folder, PAIR)] == ["greed", "loud"], (
        "and is no policy"
    )
    path.write_text('{"rate": 2}')
    with pytest.raises(PolicyProblems, match=r"(?s)budget\.json:1:1: .*run `sae-monitor policy budget`"):
        check_folder(folder)
    path.unlink()
    assert read_budget(place(folder)) is None


def test_texts_that_are_too_few_are_named(folder):
    budget = made(folder)
    kept = [
        one for one in budget.rates if (one.phase, one.longer_than) != ("prompt", 128) and one.kind != "code"
    ]
    few = rate("prompt", "any", 128, 512, 7, 0)
    found = notes(budget.model_copy(update={"rates": [*kept, few]}), folder)
    assert found == [
        "no rate is promised for prompts of 129 to 512 tokens (7), kind code (0): 200 benign texts are needed of "
        "each; name more with `policy budget --benign`",
        "no rate is promised for responses of kind code (0): 200 benign texts are needed of each; name more with "
        "`policy budget --benign`",
    ]
    long = notes(budget.model_copy(update={"context": 8192}), folder)
    assert "513 to 2,048 tokens (0), more than 2,048 tokens (0)" in long[0]
    none = notes(budget.model_copy(update={"shared": False}), folder)
    assert none == [
        "there were too few benign texts to share a budget (200 of a length are needed): every rule takes the rate "
        "that it asks for; name more with `policy budget --benign`"
    ]


def test_a_length_that_fires_more_than_the_budget_is_named_with_the_rules_that_no_budget_moves(folder):
    budget = made(folder)
    assert budget.policies["loud"].own == ["stated"]
    assert budget.policies["greed"].own == []
    over = rate("prompt", "code", 48, 128, 400, 20, by_policy={"loud": 18, "greed": 2})
    found = notes(budget.model_copy(update={"rates": [*budget.rates, over]}), folder)
    assert found == [
        "the set fires on 5.0% (4.5% to 6.0%) of benign prompts of kind code, 49 to 128 tokens, above its budget of "
        "1.0%; loud has thresholds of its own, which no budget moves"
    ]


def test_a_set_that_changed_since_is_named(folder):
    budget = made(folder)
    lock = place(folder) / "greed.lock.yaml"
    lock.write_text(lock.read_text().replace("threshold: 0.25", "threshold: 0.3"))
    moved = "greed: thresholds or modes are not those that the budget was shared over; run `sae-monitor policy budget`"
    assert notes(budget, folder) == [moved]
    again = made(folder)
    policy = folder / "loud.yaml"
    policy.write_text(
        policy.read_text().replace("action: suppress\n", "action: suppress\n    mode: shadow\n")
    )
    assert notes(again, folder) == [moved.replace("greed", "loud")]
    assert notes(None, folder) == [], "one policy that acts needs no budget"
    write_policy(folder, PINNED.replace("name: greed", "name: envy"), "envy")
    assert notes(again, folder) == [moved.replace("greed", "envy, loud")]
    assert "the 2 policies fire together: `sae-monitor policy budget`" in notes(None, folder)[0]


def test_a_digest_is_of_thresholds_alone(folder):
    (source, _) = read_folder(folder, PAIR)
    before = thresholds_digest(source)
    lock = place(folder) / "greed.lock.yaml"
    lock.write_text(lock.read_text().replace("benign_rate: 0.01", "benign_rate: 0.02"))
    assert thresholds_digest(read_folder(folder, PAIR)[0]) == before


def test_policy_check_shows_it_and_a_server_warns_of_it(folder):
    write_budget(place(folder), made(folder, context=8192))
    checked = check_folder(folder)
    assert [(pair, budget.rate) for pair, budget in checked.budgets] == [(PAIR, 0.01)]
    assert any(
        note.startswith(f"locks/{PAIR}: budget: no rate is promised for prompts of") for note in checked.notes
    )
    loaded = load_policies(folder, dictionary_digest=DICTIONARY, model_digest=MODEL, features=100)
    assert len(loaded.notes) == 2
    budget = made(folder, model={"name": "other", "digest": NOTHING})
    write_budget(place(folder), budget)
    other = load_policies(folder, dictionary_digest=DICTIONARY, model_digest=MODEL, features=100)
    assert other.notes == ("budget.json is of another model, other; run `sae-monitor policy budget`",)
    assert [source.model.metadata.name for source in budgeted_sources(budget, read_folder(folder, PAIR))] == [
        "loud"
    ]


def test_a_lock_says_what_its_policy_spends(folder):
    budget = made(folder)
    found = budget.locked("greed", lambda fired, texts: (0.001, 0.009))
    assert [(one.phase, one.fired, one.alone, one.set) for one in found.shares] == [
        ("prompt", 0.004, 0.0035, 0.006),
        ("response", 0.004, 0.0035, 0.006),
    ]
    assert (found.shares[0].low, found.shares[0].high, found.uncalibrated) == (0.001, 0.009, [])
    lock = lock_for(EXAMPLES).model_copy(update={"budget": found})
    (place(folder) / "greed.lock.yaml").write_text(lock_text(lock))
    assert read_folder(folder, PAIR)[0].lock.budget == found
    assert (
        json.loads(LockModel.model_validate(lock.model_dump(by_alias=True)).model_dump_json())["budget"][
            "rate"
        ]
        == 0.01
    )
