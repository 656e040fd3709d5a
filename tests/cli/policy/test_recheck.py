"""`policy recheck`: which pairs are opened, what is said of each verdict, the JSON, and the exit codes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.lab.recheck.equivalence import Estimate, Sameness, SamenessTest
from monitor.lab.recheck.policies import PairChange, PairScores, PolicyRecheck, Recheck
from monitor.lab.recheck.rules import Margins, RecheckVerdict, RuleRecheck

SAME, MOVED, UNKNOWN = Sameness.SAME, Sameness.MOVED, Sameness.UNKNOWN
HOLDS, STALE, DEGRADED, INCONCLUSIVE = (
    RecheckVerdict.HOLDS,
    RecheckVerdict.STALE,
    RecheckVerdict.DEGRADED,
    RecheckVerdict.INCONCLUSIVE,
)


def check(name, found=SAME, *, then=0.5, now=0.52, kind="positive", more=0):
    change = Estimate(now - then, now - then - 0.01, now - then + 0.01)
    return SamenessTest(name, then, Estimate(now, now - 0.1, now + 0.1), change, 0.05, found, kind, 80, more)


def rule(verdict, *checks, **more):
    names = {one.name for one in checks}
    whole = [check(name) for name in ("false_positives", "caught", "auroc", "recall") if name not in names]
    return RuleRecheck(
        "rules", "stated", 0.01, verdict, True, (*whole, *checks), ((16, 0.5), (None, 1.0)), **more
    )


def policy(verdict, *checks, name="greed", **more):
    return PolicyRecheck(name, verdict, (), (rule(verdict, *checks, **more),))


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Stands in for pairs and texts: what was asked, and what a recheck is to find."""
    asked, asked_locks, found = [], [], {"policies": (policy(HOLDS),)}

    class Fake:
        def __init__(self, folder, **more):
            asked.append((folder, more["only"], more["benign"], more["margins"]))
            asked_locks.append(more["locks"])

        def scores(self, pair, tell):
            return PairScores(pair, "float32", ("", ""), False, {})

        def compare(self, pair, scores, against=None):
            asked.append((pair, against and against.model))
            return Recheck(
                "some/model", "bfloat16", {"model": "a"}, "what each lock records", found["policies"]
            )

        def write(self, pair, before, scores):
            asked.append("write")
            mended = [
                replace(one, written="greed.lock.yaml") for one in before.policies if one.verdict is STALE
            ]
            return replace(before, policies=tuple(mended) or before.policies)

        def record(self, pair, scores):
            asked.append("record")
            return ["greed.lock.yaml"]

    def opened(model, dictionary, kind, device, *, pair_name, skip_self_test, dtype):
        return f"{model} {dictionary} {dtype}"

    monkeypatch.setattr("monitor.cli.policy.recheck.Rechecker", Fake)
    monkeypatch.setattr("monitor.cli.policy.recheck.opened_pair", opened)

    def run(*more, policies=None):
        found["policies"] = policies or found["policies"]
        done = CliRunner().invoke(app, ["policy", "recheck", str(tmp_path), *more], env={"COLUMNS": "120"})
        return done, " ".join(done.output.split())

    run.asked, run.locks, run.folder = asked, asked_locks, tmp_path
    return run


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([HOLDS], 0),
        ([HOLDS, INCONCLUSIVE], 12),
        ([INCONCLUSIVE, STALE], 10),
        ([STALE, DEGRADED, HOLDS], 11),
        ([DEGRADED, None], 2),
    ],
)
def test_the_worst_verdict_is_the_exit_code(world, verdicts, code):
    done, _ = world(policies=tuple(policy(one) if one else PolicyRecheck("greed", None) for one in verdicts))
    assert done.exit_code == code, done.output
    done, _ = world("--json")
    assert (done.exit_code, json.loads(done.stdout)["exit_code"]) == (code, code)


def test_exit_codes_are_in_the_help():
    text = " ".join(
        CliRunner().invoke(app, ["policy", "recheck", "--help"], env={"COLUMNS": "200"}).output.split()
    )
    assert "0 all hold, 10 stale, 11 degraded, 12 inconclusive, 2 an error" in text


@pytest.mark.parametrize(
    ("flags", "locks"),
    [([], None), (["--pair", "tiny"], "tiny"), (["--pair", "tiny", "--locks", "old"], "old")],
)
def test_the_locks_of_a_pair_are_those_of_its_name_unless_said(world, flags, locks):
    world(*flags)
    assert world.locks == [locks]


def test_the_named_pair_is_opened_and_compared_with_the_locks(world):
    world("--model", "m", "--dictionary", "d", "--dtype", "bfloat16")
    assert world.asked[-1] == ("m d bfloat16", None)


@pytest.mark.parametrize(
    ("flags", "against"),
    [
        (["--against-dtype", "float32"], "m d float32"),
        (["--against-model", "old"], "old d auto"),
        (["--against-model", "old", "--against-dictionary", "e"], "old e auto"),
    ],
)
def test_what_it_is_compared_with_is_the_same_pair_but_for_what_is_named(world, flags, against):
    world("--model", "m", "--dictionary", "d", *flags)
    assert world.asked[-1] == ("m d auto", against)


def test_one_policy_is_rechecked_alone(world):
    path = world.folder / "greed.yaml"
    path.write_text("")
    CliRunner().invoke(app, ["policy", "recheck", str(path)])
    assert world.asked[0][:2] == (world.folder, ["greed"])
    world("--only", "scams", "--benign", "x.jsonl")
    assert world.asked[2][1:3] == (["scams"], [Path("x.jsonl")])


def test_margins_are_those_that_were_asked_for(world):
    world()
    assert world.asked[0][3] == Margins()
    world("--margin-false-alarms", "0.005", "--margin-caught", "0.2")
    assert world.asked[2][3] == Margins(false_positives=0.005, caught=0.2, recall=0.2)


def test_what_holds_is_said_in_a_table(world):
    changed = replace(
        policy(HOLDS), differs=(PairChange("dtype", "float32", "bfloat16"),), notes=("mind this",)
    )
    done, text = world(policies=(changed,))
    assert "Do the locked thresholds hold for model in bfloat16?" in text
    assert "number type: float32 when fitted, bfloat16 now" in text
    assert "greed 50.0% → 52.0% 50% → 52% 0.50 → 0.52 50% → 52% - HOLDS (+1% … +3%)" in text
    assert "greed: mind this" in text
    assert "1 policy: 1 holds" in text
    assert done.exit_code == 0


def test_a_stale_rule_comes_with_its_new_thresholds(world):
    moved = check("caught", MOVED, now=0.7)
    after = (check("false_positives", then=0.01, now=0.012), check("caught", now=0.51))
    stale = policy(STALE, moved, proposed=((16, 0.6), (None, 1.2)), after=after)
    done, text = world(policies=(stale,))
    assert "have moved (what it catches)" in text
    assert "to 16 tokens 0.5 → 0.6, 1 → 1.2; with these false alarms 1.2%, caught 51%" in text
    assert "`--write` puts new thresholds into its lock" in text
    done, text = world("--write")
    assert (done.exit_code, world.asked[-1]) == (0, "write")
    assert "greed.lock.yaml written" in text


def test_thresholds_of_the_policy_itself_are_for_its_author(world):
    stale = policy(STALE, check("caught", MOVED), proposed=((None, 2.0),))
    stale = replace(stale, rules=(replace(stale.rules[0], asked=None),))
    assert "change it there" in world(policies=(stale,))[1]
    nothing = policy(STALE, check("caught", MOVED))
    assert "fit again with `policy fit`" in world(policies=(nothing,))[1]


def test_a_degraded_rule_says_what_was_lost(world):
    lost = check("auroc", MOVED, then=0.9, now=0.61)
    text = world(policies=(policy(DEGRADED, lost),))[1]
    assert (
        "It has lost separation: AUROC from 0.90 to 0.61. No threshold mends that; run `policy fit`" in text
    )


def test_an_inconclusive_rule_says_how_many_more_texts_would_do(world):
    few = policy(
        INCONCLUSIVE,
        check("caught", UNKNOWN, more=40),
        check("recall", UNKNOWN, kind="benign", more=700),
    )
    text = world(policies=(few,))[1]
    assert "about 40 positive examples more than the 80 here would do" in text
    assert "about 700 benign texts more than the 80 here would do" in text
    assert "--against-model" in text
    never = policy(INCONCLUSIVE, check("auroc", MOVED), check("recall", UNKNOWN, more=None))
    text = world(policies=(never,))[1]
    assert "Scores have moved (AUROC)" in text
    assert "far more positive examples" in text
    [one] = json.loads(world("--json")[0].stdout)["policies"]
    assert one["more_texts"] == {"positive": None}


def test_what_could_not_be_measured_says_why(world):
    gone = PolicyRecheck("greed", None, problems=("feature 9 does not exist",))
    done, text = world(policies=(gone, policy(HOLDS, name="scams")))
    assert "greed NOT MEASURED" in text
    assert "greed: cannot be measured: feature 9 does not exist" in text
    assert done.exit_code == 2


def test_scores_are_recorded_where_asked_for_and_not_with_new_thresholds(world):
    done, _ = world("--record")
    assert (done.exit_code, world.asked[-1]) == (0, "record")
    done, text = world("--record", "--write")
    assert done.exit_code == 2
    assert "--write or --record, not both" in text


def test_the_json_has_every_number(world):
    [one] = json.loads(world("--json")[0].stdout)["policies"]
    assert one["verdict"] == "holds"
    caught = next(test for test in one["rules"][0]["checks"] if test["name"] == "caught")
    assert (caught["then"], caught["found"], caught["texts"], caught["more"]) == (0.5, "same", 80, 0)
    assert caught["change"] == {
        "value": pytest.approx(0.02),
        "low": pytest.approx(0.01),
        "high": pytest.approx(0.03),
    }
