"""`policy explain`: every rule with its tokens, nearest to its threshold first."""

import io

import numpy as np
import pytest
from rich.console import Console

from monitor.cli.policy.explain import explanation_table
from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.explain import explain
from monitor.policy.schema.expression import AllOf
from monitor.records import Action, Mode, Phase
from tests.cli.policy.tools import output_of, run
from tests.policy.conftest import policy, rule
from tests.policy.policy_files import PINNED, write_policy

WORDS = ["<s>", " I", " want", "\n"]


def rows(*policies, readings):
    """Cells of the table that is printed."""
    set_ = PolicySet(tuple(policies), "")
    found = explain(set_.policies, np.asarray(readings, np.float32), Phase.PROMPT)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(explanation_table(found, WORDS))
    lines = [line for line in console.export_text().splitlines() if "│" in line]
    return [[cell.rstrip() for cell in line.strip("│").split("│")] for line in lines]


def test_nearest_to_its_threshold_first_with_the_tokens_it_rests_on():
    near = policy(rule("near", ((3, 1.0), (7, 1.0)), threshold=1.0, action=Action.BLOCK), name="a")
    far = policy(rule("far", ((7, 1.0),), threshold=9.0), name="b")
    first, second = rows(far, near, readings=[[9, 9], [0.5, 0.25], [0.0, 2.0], [0.25, 0.0]])
    assert [cell.strip() for cell in first[:4]] == ["a/near", "2.000", "1.000", "block (enforce)"]
    assert first[4].strip() == "want 2.00 (7: 2.00); I 0.75 (3: 0.50, 7: 0.25); · 0.25 (3: 0.25)"
    assert [cell.strip() for cell in second[:4]] == ["b/far", "2.000", "9.000", "no"]


def test_conditions_are_indented_below_their_rule():
    parts = tuple(
        Condition(name, features=(WeightedFeature(index, 1.0),), threshold=1.0)
        for name, index in (("wants", 3), ("gets", 7))
    )
    both = rule("both", (), threshold=0.0, mode=Mode.SHADOW, when=AllOf(all=["wants", "gets"]))
    found = rows(policy(both, name="a", conditions=parts), readings=[[0, 0], [2.0, 0.0], [0.0, 0.5], [0, 0]])
    assert found[0][0].strip() == "a/both"
    assert [row[0] for row in found[1:]] == ["   wants", "   gets"]
    assert [row[3].strip() for row in found[1:]] == ["reached", "no"]


def test_a_text_under_a_folder_of_policies(tmp_path):
    write_policy(tmp_path, PINNED)
    assert "greed/stated" in output_of("explain", tmp_path, "I want all of it.")
    done = run("explain", tmp_path, "")
    assert done.exit_code == 2
    assert "the text has no token to score" in done.output


@pytest.mark.parametrize("phase", ["prompt", "response"])
def test_a_text_is_taken_for_what_it_is_said_to_be(tmp_path, phase):
    write_policy(tmp_path, PINNED.replace("    threshold: 0.8", "    phases: [response]\n    threshold: 0.8"))
    assert ("greed/stated" in output_of("explain", tmp_path, "I want it", "--phase", phase)) is (
        phase == "response"
    )
