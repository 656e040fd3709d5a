"""What callers of vLLM's API may say to the monitor, and what is refused."""

import json

import pytest

from monitor.errors import BadRequest
from monitor.plugin.extras import Extras, extras_of
from monitor.records import Clamp, Where


def test_nothing_said_is_nothing_asked():
    assert extras_of(None, allowed=False) == extras_of({"top_k": 3}, allowed=False) == Extras()


def test_what_the_operator_has_not_allowed_is_refused():
    with pytest.raises(BadRequest, match=r"vllm_xargs\.sae_monitor_session.*its setting vllm_xargs"):
        extras_of({"sae_monitor_session": "a"}, allowed=False)


def test_everything_that_may_be_said():
    found = extras_of(
        {
            "sae_monitor_clamps": '[{"feature": 3, "target": -2}, {"feature": 4, "target": 0, "where": "everywhere"}]',
            "sae_monitor_policies": ["one", "two"],
            "sae_monitor_labels": '{"app": "shop"}',
            "sae_monitor_session": "s1",
        },
        allowed=True,
    )
    assert found.clamps == (Clamp(3, -2.0, Where.ACTIVE), Clamp(4, 0.0, Where.EVERYWHERE))
    assert found.policies == {"one", "two"}
    assert found.labels == {"app": "shop"}
    assert found.session == "s1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clamps", "["),
        ("clamps", '{"feature": 3}'),
        ("clamps", '[{"feature": 3}]'),
        ("clamps", '[{"feature": 3, "target": 1000}]'),
        ("clamps", '[{"feature": 3, "target": -1, "where": "here"}]'),
        ("clamps", '[{"feature": 3, "target": -1, "wher": "everywhere"}]'),
        ("clamps", '[{"feature": 3.5, "target": -1}]'),
        ("clamps", '[{"feature": 3, "target": NaN}]'),
        ("clamps", '[{"feature": 3, "target": -1}, {"feature": 3, "target": -2}]'),
        ("clamps", "[" * 100_000),
        ("labels", "[]"),
        ("labels", '{"app": 3}'),
        ("policies", 3),
        ("policies", ["p"] * 65),
        ("labels", json.dumps({"app": "x" * 201})),
        ("labels", json.dumps({f"n{n}": "" for n in range(17)})),
        ("session", "s" * 129),
        ("rules", "x"),
    ],
)
def test_what_is_wrong_names_its_field(name, value):
    with pytest.raises(BadRequest, match=f"vllm_xargs.sae_monitor_{name}"):
        extras_of({f"sae_monitor_{name}": value}, allowed=True)


def test_policies_may_be_a_text():
    assert extras_of({"sae_monitor_policies": "one, two"}, allowed=True).policies == {"one", "two"}


def test_a_wrong_clamp_says_what_to_write_instead():
    asked = {"sae_monitor_clamps": '[{"feature": 3, "target": 1000}]'}
    with pytest.raises(
        BadRequest, match=r"sae_monitor_clamps\[0\]\.target: is 1000; write a number from -100 to 100"
    ):
        extras_of(asked, allowed=True)
    with pytest.raises(
        BadRequest, match=r'is not JSON; write a JSON list such as \[{"feature": 17, "target": -2}\]'
    ):
        extras_of({"sae_monitor_clamps": "-2"[:1]}, allowed=True)
    with pytest.raises(BadRequest, match="did you mean `sae_monitor_clamps`"):
        extras_of({"sae_monitor_clamp": "[]"}, allowed=True)
