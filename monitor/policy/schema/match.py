"""Which requests a policy applies to.

Knows patterns. Does not know where callers and labels come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from monitor.policy.schema.base import Check, Strict, refuse

Pattern = Annotated[str, Field(min_length=1, max_length=200)]
LABEL = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
LabelName = Annotated[str, Field(pattern=LABEL, max_length=64)]


class Match(Strict):
    """Patterns are exact words, or globs with `*`, `?` and `[abc]`. All that is written must match."""

    callers: Annotated[list[Pattern], Field(min_length=1)] | None = None
    """Names of authenticated callers; a caller without a name matches only `*`."""
    labels: Annotated[dict[LabelName, Pattern], Field(min_length=1)] | None = None
    """Labels of the request. Callers choose them, so bind by labels only where callers are trusted."""
    models: Annotated[list[Pattern], Field(min_length=1)] | None = None
    """Names of models. Where the running one does not match, the policy is not loaded and needs no lock for it."""

    def checks(self) -> Iterable[Check]:
        """Something is bound."""
        return (self._something,)

    def _something(self) -> None:
        if not (self.callers or self.labels or self.models):
            raise refuse([], "write `callers:`, `labels:` or `models:`, or leave `match` out")

    def admits(self, caller: str, labels: Mapping[str, str]) -> bool:
        """Whether a request of this caller with these labels is meant."""
        wanted = self.labels or {}
        return fits(self.callers, caller) and all(
            name in labels and fnmatchcase(labels[name], pattern) for name, pattern in wanted.items()
        )


def fits(patterns: Sequence[str] | None, word: str) -> bool:
    """True where one of the patterns matches a word, or there are none."""
    return patterns is None or any(fnmatchcase(word, pattern) for pattern in patterns)
