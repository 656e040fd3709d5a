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
    text: str | None = None, rail: str = "input", config: Any = None, **_: Any
) -> RailOutcome:
    """Block what a policy blocks, and what could not be checked where `on_unreachable` is `closed`."""
    settings = (getattr(config, "custom_data", None) or {}).get("sae_monitor", {})
    if not (text or "").strip():
        return RailOutcome.allow()
    body = {"texts": [text], "input_type": "request" if rail == "input" else "response"}
    token = os.environ.get(str(settings.get("token_variable", "")), "")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    url = str(settings.get("url", "http://127.0.0.1:8090")).rstrip("/") + _PATH
    try:
        async with httpx.AsyncClient(timeout=float(settings.get("timeout_seconds", 10))) as client:
            answer = await client.post(url, json=body, headers=headers)
            answer.raise_for_status()
            found = answer.json()
            action_taken = found["action"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        # The error's own text may quote the request.
        _log.error("sae-monitor gave no answer (%s)", type(error).__name__)
        if settings.get("on_unreachable", "closed") == "open":
            return RailOutcome.allow(reason="not checked", metadata={"sae_monitor": "unreachable"})
        return RailOutcome.block(reason="the text could not be checked")
    if action_taken == "BLOCKED":
        return RailOutcome.block(reason=found.get("blocked_reason") or "the text violates a policy")
    return RailOutcome.allow()
