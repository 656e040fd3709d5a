"""`policy check`, `schema` and `reload`: what needs no model."""

import json
from dataclasses import replace

import pytest

from monitor.cli.policy.folder import in_force
from monitor.pairs import tiny
from monitor.policy.files.lock_folders import lock_path
from monitor.policy.schema.policy import json_schema
from monitor.v1 import monitor_pb2 as pb
from tests.cli.policy.tools import run
from tests.pairs.registered import registered
from tests.policy.policy_files import PAIR, PINNED, write_concept, write_policy


def test_check_says_what_is_wrong_and_exits_with_2(tmp_path):
    write_policy(tmp_path, PINNED)
    done = run("check", tmp_path)
    assert done.exit_code == 0, done.output
    assert "1 policy, 1 rule, " in done.output
    assert "has no test file" in done.output
    write_policy(tmp_path, PINNED.replace("threshold: 0.8", "threshold: high"))
    done = run("check", tmp_path)
    assert done.exit_code == 2
    assert "greed.yaml:13:16" in done.output


def test_schema_is_json(tmp_path):
    assert json.loads(run("schema").output) == json_schema()
    assert run("schema", "-o", tmp_path / "s.json").exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text()) == json_schema()


def test_check_notes_rules_that_changed_since_they_were_fitted(tmp_path):
    path, _ = write_concept(tmp_path)
    assert "fitted" not in run("check", tmp_path).output
    path.write_text(path.read_text().replace("pooling: max", "pooling: ema"))
    done = run("check", tmp_path)
    assert done.exit_code == 0, done.output
    assert "greed: `stated` changed its pooling" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"changed": False}, "the files are those in force (abababababab)"),
        ({"changed": True, "added": ["a", "b"]}, "in force now: abababababab; new: a, b"),
        ({"changed": True, "removed": ["c"], "added": ["a"]}, "in force now: abababababab; new: a; gone: c"),
        ({"changed": True}, "in force now: abababababab"),
    ],
)
def test_what_is_in_force_after_a_reload(answer, said):
    digests = pb.Digests(policies="sha256:" + "ab" * 32)
    assert in_force(pb.ReloadPoliciesResponse(digests=digests, **answer)) == said


def test_check_lists_the_pairs_that_there_are_locks_for_and_lack_them(tmp_path):
    path, _ = write_concept(tmp_path)
    (tmp_path / "envy.yaml").write_text(path.read_text().replace("name: greed", "name: envy"))
    said = run("check", tmp_path).output
    hint = f"`sae-monitor policy fit {tmp_path} --model MODEL --dictionary DICTIONARY` makes them"
    assert f"locks/{PAIR}: 1 lock; missing for envy: {hint}\n" in said
    assert "locks/tiny" not in said, "a folder for a model of one's own needs no locks for others"
    lock_path(path, PAIR).parent.rename(tmp_path / "locks" / "tiny")
    said = run("check", tmp_path).output
    assert (
        f"locks/tiny: 1 lock; missing for envy: `sae-monitor policy fit {tmp_path} --pair tiny` makes them\n"
        in said
    )
    with registered(replace(tiny.PAIR, name="absent", dictionary=tmp_path / "none")):
        assert "locks/absent" not in run("check", tmp_path).output, "its dictionary is not here"
    with registered(replace(tiny.PAIR, name="twin")):
        said = run("check", tmp_path).output
    assert f"locks/twin: none; `sae-monitor policy fit {tmp_path} --pair twin` makes them\n" in said
