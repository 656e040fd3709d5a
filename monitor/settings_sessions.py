"""Settings of conversations that rules with `scope: session` add up over; part of `monitor.settings.Settings`.

Knows names, defaults and bounds. Does not know what a session holds.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings


class SessionSettings(BaseSettings):
    """The part of the settings that bounds what is kept of conversations."""

    session_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Most conversations whose scores are kept, all callers together. The one that was used longest ago goes first; its
    next request gets the verdict UNKNOWN (`session_lost`) from policies that add up over sessions. Each takes a few
    kilobytes, and four bytes per token of its last request."""

    session_ttl_seconds: Annotated[float, Field(gt=0, le=31_536_000)] = 3600.0
    """After so long without a request a conversation is dropped in the same way."""
