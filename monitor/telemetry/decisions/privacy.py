"""What may be known of a text from the log: a keyed hash by which equal prompts are found, and text with masks.

Knows HMAC and regular expressions. Does not know who asks for text.
"""

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
"""A text, or the turns of a conversation as `{"role": …, "content": …}`."""

SHORTEST_KEY = 16
_LARGEST_KEY = 4096


class PromptHash:
    """HMAC-SHA-256 of prompts. Without the key, nobody can test a guess against the log.

    `key_id` tells which hashes may be compared: those made with the same key.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.key_id = hmac.new(key, b"sae-monitor prompt key", hashlib.sha256).hexdigest()[:8]

    @classmethod
    def of_file(cls, path: Path | None) -> PromptHash:
        """The key in a file, or a new one for this process alone. Raises ConfigurationError."""
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
        """64 hexadecimal digits; the same for the same text or conversation."""
        plain = (
            content if isinstance(content, str) else json.dumps([[t["role"], t["content"]] for t in content])
        )
        return hmac.new(self._key, plain.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


class TextMasks:
    """Cuts what must not be logged out of text: each match becomes `[name]`, in the order of the names given."""

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
