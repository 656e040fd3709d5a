"""Forms in which the decision log may contain a text: a keyed hash, which finds equal prompts, or the masked text."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from monitor.errors import ConfigurationError

Content = str | Sequence[Mapping[str, str]]
"""A text, or the messages of a conversation as `{"role": …, "content": …}`."""

SHORTEST_KEY = 16
"""Minimum length of a key in bytes."""
_LARGEST_KEY = 4096


class PromptHash:
    """HMAC-SHA-256 of prompts. Without the key nobody can test whether a guessed text is in the log.

    Hashes can be compared only where their `key_id` is the same.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.key_id = hmac.new(key, b"sae-monitor prompt key", hashlib.sha256).hexdigest()[:8]

    @classmethod
    def of_file(cls, path: Path | None) -> PromptHash:
        """The hash with the key in a file; None makes a new key for this process. Raises ConfigurationError."""
        if path is None:
            return cls(secrets.token_bytes(32))
        try:
            with path.open("rb") as file:
                key = file.read(_LARGEST_KEY + 1).strip()
        except OSError as error:
            raise ConfigurationError(
                f"decision_log_salt_file: {path} cannot be read: {error.strerror}"
            ) from None
        if not SHORTEST_KEY <= len(key) <= _LARGEST_KEY:
            raise ConfigurationError(
                f"decision_log_salt_file: {path} holds {len(key)} bytes; write {SHORTEST_KEY} to {_LARGEST_KEY}, "
                "such as the output of `openssl rand -hex 32`"
            )
        return cls(key)

    def __call__(self, content: Content) -> str:
        """The hash of a text or a conversation, as 64 hexadecimal digits."""
        plain = (
            content if isinstance(content, str) else json.dumps([[t["role"], t["content"]] for t in content])
        )
        return hmac.new(self._key, plain.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


class TextMasks:
    """Masks text that must not be logged: each match of a pattern becomes `[name]`, in the order given."""

    def __init__(self, patterns: Mapping[str, re.Pattern[str]]) -> None:
        self._patterns = tuple((f"[{name}]", pattern) for name, pattern in patterns.items())

    def __call__(self, text: str) -> str:
        """The text with every match replaced."""
        for name, pattern in self._patterns:
            text = pattern.sub(lambda _, name=name: name, text)  # type: ignore[misc]
        return text

    def content(self, content: Content) -> str | list[dict[str, str]]:
        """A prompt with every match replaced; roles stay."""
        if isinstance(content, str):
            return self(content)
        return [{"role": turn["role"], "content": self(turn["content"])} for turn in content]
