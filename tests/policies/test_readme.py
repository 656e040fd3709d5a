"""The examples of policies/README.md are policies that work, and its field table names every field."""

import re
from pathlib import Path

import pytest

from monitor.policy.files.cases import read_tests
from monitor.policy.files.lock import LockModel, write_lock
from monitor.policy.files.lock_folders import locks_of
from monitor.policy.files.pins import locked_pins
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, read_source
from monitor.policy.files.yaml_document import read_document
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.policy import AskedRate, PolicyModel
from tests.policy.policy_files import DICTIONARY, EXAMPLES, MODEL, PAIR, PINNED, lock_for

README = Path(__file__).parents[2] / "policies" / "README.md"
HEAD = PINNED.split("features:\n")[0]


def blocks():
    """Indented blocks of YAML: whole policies and parts of some."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README.read_text(), re.M)
    parts = ["\n".join(line[4:] for line in block.strip("\n").split("\n")) for block in found]
    return [part for part in parts if re.match(r"(rules|conditions|probe|match):", part)]


@pytest.mark.parametrize("block", blocks(), ids=lambda block: re.search(r"name: (\S+)", block).group(1))
def test_parts_of_policies_load_and_run(block, tmp_path):
    path = tmp_path / "greed.yaml"
    path.write_text(HEAD + block + "\n")
    source = read_source(path, None)
    if source.model.needs_lock:
        write_lock(path, calibrated(source.model), PAIR)
        source = read_source(path, PAIR)
    problems = []
    policy = resolve(source, Running(MODEL, DICTIONARY, 100), problems)
    assert not problems
    assert policy.rules
    assert PolicySet((policy,), "").start(str).first.clamps == ()


def calibrated(model):
    """A lock as the fit would write it, with any numbers."""
    data = lock_for(EXAMPLES).model_dump(by_alias=True, exclude={"card"})
    data |= {"features": [], "suppress": [], "rules": {}, "conditions": {}}
    for (section, name), check in model.leaves().items():
        if isinstance(check.threshold, AskedRate):
            kind = check.pooling if isinstance(check.pooling, str) else check.pooling.model_dump()
            data[section][name] = {
                "threshold": 0.5,
                "pooling": {"kind": kind} if isinstance(kind, str) else kind,
                "for": check.for_,
                "signal": check.signal,
                "pins": [pin.model_dump() for pin in locked_pins(model, check, [1.0] * 100)],
                "asked_rate": check.threshold.false_positive_rate,
                "benign_rate": 0.0,
                "benign_texts": 1,
            }
    return LockModel.model_validate(data)


def test_there_is_an_example_of_everything():
    text = "\n".join(blocks())
    words = [
        "conditions:",
        "when:",
        "not:",
        "at_least:",
        "any:",
        "scope: session",
        "signal:",
        "probe:",
        "match:",
        "up_to:",
    ]
    assert [word for word in words if word not in text] == []


def test_the_first_policy_of_the_readme_reads(tmp_path):
    lines = README.read_text().split("\n")
    start = next(i for i, line in enumerate(lines) if "yaml-language-server" in line)
    end = next(i for i in range(start, len(lines)) if lines[i] and not lines[i].startswith("       "))
    path = tmp_path / "gossip.yaml"
    path.write_text("\n".join(line[7:] for line in lines[start:end]))
    rows = '{"text": "a", "label": "positive"}\n{"text": "b", "label": "negative"}\n'
    (tmp_path / "gossip.examples.jsonl").write_text(rows)
    assert read_source(path, None).model.metadata.name == "gossip"
    assert read_document(path).data
    assert not locks_of(path)


def test_the_table_names_every_field():
    table = README.read_text().split("## Fields")[1].split("## What a rule reads")[0]
    top = {field.alias or name for name, field in PolicyModel.model_fields.items()} - {"apiVersion"}
    named = set(re.findall(r"`(\w+)", table))
    assert top - {"metadata", "suppress", "concept"} <= named | {"rules"}
    model = PolicyModel.model_json_schema(by_alias=True)["$defs"]
    for part in ("RuleModel", "Suppress", "Match"):
        missing = [f for f in model[part]["properties"] if f not in ("name",) and f"{f}" not in table]
        assert not missing, (part, missing)


def test_the_first_policy_and_its_test_are_read(tmp_path):
    steps = re.findall(r"(?:^       .*\n|^\n(?=       ))+", README.read_text(), re.M)
    texts = ["\n".join(line[7:] for line in step.strip("\n").split("\n")) + "\n" for step in steps]
    (rows,) = (text for text in texts if text.startswith('{"text"'))
    (policy,) = (text for text in texts if "metadata:" in text)
    (cases,) = (text for text in texts if text.startswith("apiVersion") and "cases:" in text)
    for end, text in (("examples.jsonl", rows), ("yaml", policy), ("test.yaml", cases)):
        (tmp_path / f"gossip.{end}").write_text(text)
    tests = read_tests(read_source(tmp_path / "gossip.yaml", None))
    assert {tuple(case.fires) for case in tests.cases} == {("told",), ()}
