"""Names that callers and files give never become paths outside of the folder that the operator named."""

import json

import grpc
import pytest

from monitor.errors import ConfigurationError, PolicyError
from monitor.policy.files.loader import load_policies
from monitor.rpc.access.callers import entry_line, new_token
from monitor.rpc.access.roles import Role
from monitor.v1 import monitor_pb2 as pb
from tests.policy.policy_files import DICTIONARY, MODEL, PINNED, write_policy
from tests.rpc.conftest import DEADLINE, fails

CLIMBING = (
    "../secret",
    "/etc/passwd",
    "a/../../secret",
    "..",
    "~/secret",
    "a\\..\\secret",
    "a\0b",
    "ａ/ｂ",
    "",
)


def load(folder):
    return load_policies(folder, dictionary_digest=DICTIONARY, model_digest=MODEL, features=100)


@pytest.fixture
def folder(tmp_path):
    """A policy folder beside a file that must stay unread."""
    row = json.dumps({"text": "canary-of-a-neighbour", "label": "positive"})
    for name in ("secret", "secret.jsonl", "secret.yaml", "secret.safetensors"):
        (tmp_path / name).write_text(row + "\n")
    inside = tmp_path / "policies"
    inside.mkdir()
    return inside


def refused(folder):
    with pytest.raises(PolicyError) as caught:
        load(folder)
    assert "canary-of-a-neighbour" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [*CLIMBING, "../secret.jsonl", "x/../../secret.jsonl"])
def test_example_files_of_a_concept(folder, name):
    concept = json.dumps({"examples": name})
    text = PINNED.replace(
        "features:\n  - {index: 3, label: wants}\n  - {index: 7, weight: 0.5}\n", f"concept: {concept}\n"
    )
    assert "concept" in text
    write_policy(folder, text)
    assert "examples" in refused(folder)


@pytest.mark.parametrize("name", CLIMBING)
def test_names_of_policies(folder, name):
    write_policy(folder, PINNED.replace("name: greed", f"name: {json.dumps(name)}", 1))
    assert "name" in refused(folder)


@pytest.mark.parametrize("name", [*CLIMBING, "../secret.safetensors"])
def test_weights_of_probes(folder, name):
    probe = json.dumps({"weights_file": name, "digest": "sha256:" + "0" * 64})
    text = PINNED.replace(
        "features:\n  - {index: 3, label: wants}\n  - {index: 7, weight: 0.5}\n", f"probe: {probe}\n"
    )
    write_policy(folder, text)
    assert "weights_file" in refused(folder) or "probe" in refused(folder)


@pytest.mark.parametrize("name", CLIMBING)
def test_names_of_callers(name):
    with pytest.raises(ConfigurationError, match="name"):
        entry_line(name, [Role.INFER], new_token())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CLIMBING if "\0" not in name])
def test_names_in_requests_open_nothing(served, name):
    request = pb.WatchDetectionsRequest(policies=[name])
    with pytest.raises(grpc.RpcError) as caught:
        list(served.stub.WatchDetections(request, timeout=0.2))
    assert caught.value.code().name in ("DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "NOT_FOUND")
    assert served.score("still here").verdict.status == pb.CHECK_STATUS_CHECKED


def test_text_fields_of_requests_are_known():
    """Every text that a request can carry: a new one that names a file must be thought about here."""
    found = set()

    def walk(message, path, seen):
        for field in message.fields:
            if field.type == field.TYPE_STRING:
                found.add(f"{path}{field.name}")
            if field.message_type is not None and field.message_type.full_name not in seen:
                walk(field.message_type, f"{path}{field.name}.", {*seen, field.message_type.full_name})

    for method in pb.DESCRIPTOR.services_by_name["MonitorService"].methods:
        walk(method.input_type, "", {method.input_type.full_name})
    suspicious = ("path", "file", "folder", "directory", "url", "uri", "address")
    assert not [name for name in found if any(word in name.rsplit(".", 1)[-1] for word in suspicious)]
    assert "input.text" in found


def test_oversized_lists_of_names(served):
    request = pb.WatchDetectionsRequest(policies=["x" * 100] * 100_000)
    with fails("RESOURCE_EXHAUSTED"):
        list(served.stub.WatchDetections(request, timeout=DEADLINE))
