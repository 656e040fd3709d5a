"""The JSON Schema as an editor uses it: shipped policies are valid, wrong fields are underlined."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from monitor.policy.files.yaml_document import PolicyProblems, read_document
from tests.policy.files.test_lint import FULL
from tests.policy.policy_files import PINNED

POLICIES = Path(__file__).parents[3] / "policies"
MALFORMED = Path(__file__).parents[1] / "malformed"
SCHEMA = json.loads((POLICIES / "policy.schema.json").read_text())
WRITTEN = [p for p in sorted(POLICIES.glob("*.yaml")) if p.suffixes == [".yaml"]]


@pytest.fixture(scope="module")
def editor():
    Draft202012Validator.check_schema(SCHEMA)
    return Draft202012Validator(SCHEMA)


def test_what_is_shipped_is_valid(editor):
    assert WRITTEN
    for path in WRITTEN:
        assert not list(editor.iter_errors(read_document(path).data)), path


@pytest.mark.parametrize("text", [PINNED, FULL], ids=["pinned", "full"])
def test_every_part_of_the_language_is_valid(text, editor, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    assert not list(editor.iter_errors(read_document(tmp_path / "a.yaml").data))


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("severity: high", "severity: hig", ["metadata", "severity"]),
        ("threshold: 0.8", "threshold: high", ["rules", 0, "threshold"]),
        ("threshold: 0.8", "threshold: 0.8\n    treshold: 1", ["rules", 0]),
        ("target: -1.5", "target: 1.5", ["suppress", "target"]),
        ("target: -1.5", "target: -1.0e+30", ["suppress", "target"]),
        ("target: -1.5", "target: -.inf", ["suppress", "target"]),
        ("name: greed", "name: Greed Is Bad", ["metadata", "name"]),
        ("index: 3", "index: -3", ["features", 0, "index"]),
    ],
)
def test_a_wrong_field_is_underlined_where_it_stands(old, new, path, editor, tmp_path):
    (tmp_path / "a.yaml").write_text(PINNED.replace(old, new))
    errors = list(editor.iter_errors(read_document(tmp_path / "a.yaml").data))
    found = {tuple(inner.absolute_path) for error in errors for inner in (error, *(error.context or ()))}
    assert any(one[: len(path)] == tuple(path) for one in found), found


def test_every_field_says_what_to_write():
    parts = [SCHEMA, *SCHEMA["$defs"].values()]
    fields = {
        (part["title"], name): field for part in parts for name, field in part.get("properties", {}).items()
    }
    assert ("RuleModel", "threshold") in fields
    silent = {key for key, field in fields.items() if not field.get("description", "").rstrip().endswith(".")}
    assert all(name == "kind" and "const" in fields[part, name] for part, name in silent), silent


def test_malformed_files_never_break_an_editor(editor):
    """Wrong types and unknown fields are told; what fields need of each other is not the schema's to know."""
    told = 0
    for path in sorted(MALFORMED.glob("*.yaml")):
        try:
            data = read_document(path).data
        except PolicyProblems:
            continue
        told += bool(list(editor.iter_errors(data)))
    assert told > 30
