"""The OpenAPI files that contracts are published in, where CONTRACT_FILES names a folder with them.

They belong to others and are not part of this project: `openapi_detector_api.yaml` of the FMS guardrails orchestrator,
and `gloo-ai-gateway-guardrail-webhook-openapi.yaml` of Gloo AI Gateway.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML


class PublishedContract:
    """One of these files."""

    def __init__(self, name: str) -> None:
        """Skips the test where it is not there."""
        folder = os.environ.get("CONTRACT_FILES")
        if folder is None:
            pytest.skip(f"{name} is not here; save it into a folder and set CONTRACT_FILES to that")
        self._file: Any = YAML(typ="safe").load(Path(folder, name).read_text("utf-8"))

    def check(self, answer: httpx2.Response) -> None:
        """Fail where an answer has a status or a body that is not in the contract."""
        described = self._file["paths"][answer.url.path]["post"]["responses"]
        assert str(answer.status_code) in described, answer.text
        self._validate(
            described[str(answer.status_code)]["content"]["application/json"]["schema"], answer.json()
        )

    def check_part(self, name: str, content: Any) -> None:
        """Fail where a part of an answer is not what the contract calls by this name, or has more in it."""
        assert set(content) <= set(self._file["components"]["schemas"][name]["properties"])
        self._validate({"$ref": f"#/components/schemas/{name}"}, content)

    def _validate(self, schema: dict[str, Any], content: Any) -> None:
        Draft202012Validator(schema | {"components": self._file["components"]}).validate(content)
