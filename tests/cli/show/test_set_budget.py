"""The tables of a budget: what the set costs, and what each policy spends."""

import io

from rich.console import Console

from monitor.cli.show.set_budget import budget_tables
from monitor.policy.files.set_budget import SetBudget
from tests.policy.policy_files import DICTIONARY, MODEL, NOTHING


def shown(budget):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(budget_tables(budget))
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def rate(phase, kind, low, up, texts, fired, **more):
    found = {"phase": phase, "kind": kind, "longer_than": low, "up_to": up, "texts": texts, "fired": fired}
    return {**found, "low": 0.001, "high": 0.012, **more}


def budget(*rates):
    policy = {"enforced": ["r"], "thresholds": NOTHING}
    return SetBudget.model_validate(
        {
            "model": {"name": "m", "digest": MODEL},
            "dictionary": {"digest": DICTIONARY, "features": 100},
            "rate": 0.01,
            "context": 128,
            "sufficient": 200,
            "shared": True,
            "benign": NOTHING,
            "edges": [16, 48, 128],
            "policies": {"greed": {**policy, "weight": 2.0}, "envy": {**policy, "enforced": []}},
            "rates": list(rates),
        }
    )


def test_lengths_kinds_and_policies_have_a_row_each():
    lines = shown(
        budget(
            rate("prompt", "any", 0, None, 1000, 5, by_policy={"greed": 5}, alone={"greed": 4}),
            rate("prompt", "any", 0, 16, 900, 5),
            rate("prompt", "any", 16, 48, 100, 1),
            rate("prompt", "code", 0, None, 1000, 5),
            rate("response", "any", 0, None, 500, 0),
        )
    )
    assert "Benign texts on which any rule that acts fires; budget 1.00%" in lines
    assert "all 0.50% 0.10-1.20 of 1,000 0.00% 0.10-1.20 of 500" in lines
    assert "1-16 tokens 0.56% 0.10-1.20 of 900 no text" in lines
    assert "17-48 tokens too few: 1 of 100 no text" in lines
    assert "49-128 tokens no text no text" in lines, "the context holds no longer ones"
    assert "code 0.50% 0.10-1.20 of 1,000 no text" in lines
    assert "greed 2 0.50%, 0.40% 0.00%, 0.00%" in lines
    assert "envy 1 in shadow" in lines
    assert not any("requests" in line for line in lines)


def test_requests_have_a_column_where_there_are_any():
    lines = shown(budget(rate("prompt", "any", 0, None, 1000, 5), rate("request", "any", 0, None, 400, 3)))
    assert "texts prompts responses requests" in lines
    assert "all 0.50% 0.10-1.20 of 1,000 no text 0.75% 0.10-1.20 of 400" in lines
