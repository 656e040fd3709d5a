"""The action of the rails in this folder: has a sae-monitor score a text, and says what becomes of it."""

from __future__ import annotations

import logging
import os
from typing import Any

import httpx
from nemoguardrails.actions import action
from nemoguardrails.actions.rail_outcome import RailOutcome

_PATH = "/beta/litellm_basic_guardrail_api"
_log = logging.getLogger(__name__)


@action(name="check_with_sae_monitor", is_system_action=True)
async def check_with_sae_monitor(
    text: Any = None, calls: Any = None, rail: str = "input", config: Any = None, **_: Any
) -> RailOutcome:
    """Block what a policy blocks, and what could not be checked where `on_unreachable` is `closed`.

    `text` is that of a message, `calls` are calls of tools.
    """
    settings = (getattr(config, "custom_data", None) or {}).get("sae_monitor", {})
    try:
        body = _asked(text, rail) | {"tool_calls": list(calls or ())}
        if not (body["texts"] or body["images"] or body["tool_calls"]):
            return RailOutcome.allow()
        found = await _answer(settings, body)
        if found["action"] == "NONE":
            return RailOutcome.allow()
        if found["action"] == "BLOCKED":
            return RailOutcome.block(reason=found.get("blocked_reason") or "the text violates a policy")
        # Such as to change the text, which these rails do not: it is no answer of a sae-monitor.
        raise ValueError("no action that is known")
    except Exception as error:  # noqa: BLE001  whatever it is, the text was not checked
        # The error's own text may quote the request.
        _log.error("sae-monitor gave no answer (%s)", type(error).__name__)
        if settings.get("on_unreachable", "closed") == "open":
            return RailOutcome.allow(reason="not checked", metadata={"sae_monitor": "unreachable"})
        return RailOutcome.block(reason="the text could not be checked")


async def _answer(settings: Any, body: dict[str, Any]) -> Any:
    token = os.environ.get(str(settings.get("token_variable", "")), "")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    url = str(settings.get("url", "http://127.0.0.1:8090")).rstrip("/") + _PATH
    async with httpx.AsyncClient(timeout=float(settings.get("timeout_seconds", 10))) as client:
        answer = await client.post(url, json=body, headers=headers)
        answer.raise_for_status()
        return answer.json()


def _asked(content: Any, rail: str) -> dict[str, Any]:
    """The request: the texts of a message, and how many of its parts are none and cannot be scored."""
    texts, others = [], 0
    for part in content if isinstance(content, list) else [content or ""]:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str) and text.strip():
            texts.append(text)
        known = isinstance(part, str) or (isinstance(part, dict) and part.get("type") == "text")
        others += not (known and isinstance(text, str))
    body = {
        "texts": texts,
        "images": ["not a text"] * others,
        "input_type": "request" if rail == "input" else "response",
    }
    if rail == "input" and isinstance(content, list):
        # Read as one message, so that no word is split over its parts.
        body["structured_messages"] = [{"role": "user", "content": content}]
    return body
