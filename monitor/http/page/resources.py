"""What the page's methods share: the server's parts, its dictionary's features, the overlay, and work on threads."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs

from monitor.errors import BadRequest, NotFound, Violation
from monitor.http.calls import Exchange, HttpCalls, ending_with
from monitor.http.door import served_name
from monitor.http.page.feature_book import FeatureBook
from monitor.http.page.overlay import Overlay
from monitor.lab.cost.edits import OWN
from monitor.lab.pair import Pair, served_pair
from monitor.model.runtime import Runtime
from monitor.pairs.registry import chosen_pair
from monitor.policy.files.source import Running
from monitor.policy.rules.token_scores import TokenScores
from monitor.rpc.access.call_interceptor import current_call
from monitor.rpc.access.roles import caller
from monitor.rpc.assembly import bundled_policies
from monitor.rpc.policies import InForce
from monitor.rpc.server import DoorParts
from monitor.settings import Settings

T = TypeVar("T")
Gone = Callable[[], bool]
"""True once nobody waits for a piece of work any more."""
MOST_PARAMETERS = 250
"""Behind the question mark of a path."""
_MEASURED = ("sources", "rates")
LARGEST_REPORT = 16 << 20
"""Bytes of a report of a measurement that is read."""


class CallerLeft(Exception):
    """Ends a piece of work whose caller has left. Nobody is told of it."""


class PageResources:
    """Everything behind the page of one server."""

    def __init__(self, settings: Settings, parts: DoorParts) -> None:
        """Raises ConfigurationError where the overlay cannot be used."""
        self.settings, self.parts = settings, parts
        self.calls = HttpCalls(
            parts.checks, parts.metrics, parts.limits, parts.traces, settings.max_message_bytes
        )
        self.model = served_name(settings)
        self.folder = settings.policies or bundled_policies()
        self.overlay = Overlay(settings.page_overlay) if settings.page_overlay is not None else None
        runtime = parts.runtime
        self.runtime = runtime if isinstance(runtime, Runtime) else None
        """None where nothing is known of the dictionary besides what policies watch."""
        self._scores: tuple[InForce, TokenScores] | None = None

    @property
    def inspects(self) -> bool:
        """True where all features of a text can be read; else only those that policies watch."""
        return self.runtime is not None and self.runtime.inspects

    @cached_property
    def book(self) -> FeatureBook | None:
        """The features of the dictionary, by name; None where nothing is known of them."""
        if self.runtime is None:
            return None
        dictionary = self.runtime.dictionary
        own = self.overlay.labels(dictionary.digest) if self.overlay is not None else None
        return FeatureBook(dictionary, own)

    @cached_property
    def pair(self) -> Pair:
        """Model and dictionary. Raises NotFound as `need_book`."""
        if self.runtime is None:
            raise NotFound("this engine reads no features besides those that policies watch")
        chosen = chosen_pair(self.settings.pair, self.settings.model, self.settings.dictionary)
        return served_pair(self.runtime, chosen.name(self.runtime.model_digest))

    @property
    def reading(self) -> Pair:
        """Model and dictionary, for reading texts beside the requests. NotFound where the engine cannot."""
        if not self.inspects:
            raise NotFound("this engine reads no features besides those that policies watch")
        return self.pair

    @cached_property
    def running(self) -> Running:
        """What policies are resolved for."""
        from monitor.lab.policies import running_of

        return running_of(self.pair)

    def scores(self, now: InForce) -> TokenScores:
        """What tokens score under a policy set."""
        if self._scores is None or self._scores[0] is not now:
            self._scores = now, TokenScores(now.policies.policies)
        return self._scores[1]

    def evaluation(self, policy: str) -> dict[str, Any] | None:
        """What `policy evaluate --json` measured of a policy on this pair; None where no file says so.

        Files are `evaluation.json` and `evaluations/PAIR.json`; whatever they are called, their digests tell which
        pair they are of. Blocks. `same` is False where the policies have changed since; a file of the present ones
        goes before others.
        """
        here = self.parts.active.now.digests
        of_pair = []
        for found in filter(None, (_record(path, {"digests", *_MEASURED}) for path in self._evaluations())):
            digests = found["digests"]
            if (digests.get("model"), digests.get("dictionary")) == (here.model, here.dictionary):
                of_pair.append((found, digests.get("policies") == here.policies))
        if not of_pair:
            return None
        found, same = next((one for one in of_pair if one[1]), of_pair[0])
        mine = {key: [row for row in found[key] if row["policy"] == policy] for key in _MEASURED}
        return mine | {
            "same": same,
            "pair": found.get("pair", ""),
            "curve_rates": found.get("curve_rates", []),
        }

    def _evaluations(self) -> Iterator[Path]:
        """The files that may hold an evaluation, those of the overlay first."""
        for folder in reversed(self._measured):
            yield folder / "evaluation.json"
            yield from sorted(folder.glob("evaluations/*.json"))

    def charge(self, texts: Iterable[str]) -> None:
        """Charge the caller of the present call for texts that are read. Raises Overloaded and BadRequest."""
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        current_call().charged(self.parts.runs.limits.fewest_tokens(size))

    async def work(self, exchange: Exchange, what: Callable[[Gone], T]) -> T:
        """Do something long on the server's thread for such work, its callers in turns. The body has been read.

        Cancelled where the caller goes away. A thread cannot be interrupted, so `what` is given what says that nobody
        waits any more, and asks it wherever it has done a part.
        """
        gone = threading.Event()
        with ending_with(exchange):
            try:
                return await self.parts.inspecting.run(lambda: what(gone.is_set), caller.get().name)
            finally:
                gone.set()

    @property
    def _measured(self) -> list[Path]:
        """The folders in which measurements of policies are looked for."""
        return [self.folder, *([self.overlay.folder] if self.overlay is not None else [])]

    def costs(self) -> dict[str, list[dict[str, Any]]]:
        """By policy, what its clamps were measured to cost on this pair, by target; from `costs/NAME.cost.json`.

        Blocks. Reports of another model or dictionary are left out.
        """
        here = (self.parts.runtime.model_digest, self.parts.runtime.dictionary_digest)
        found = {}
        for path in (path for folder in self._measured for path in sorted(folder.glob("costs/*.cost.json"))):
            report = _record(path, {"policy", "points"})
            if report is not None and (report.get("model"), report.get("dictionary")) == here:
                found[str(report["policy"])] = list(_costs(report["points"]))
        return found


def _costs(points: Any) -> Iterator[dict[str, float]]:
    """What a report says of the policy's own clamps; points that lack a number are left out."""
    for point in points if isinstance(points, list) else ():
        if isinstance(point, dict) and point.get("way") == OWN:
            numbers = {key: point.get(key) for key in ("strength", "perplexity_ratio", "kl")}
            if all(map(_finite, numbers.values())):
                further = {key: _share(point.get(key)) for key in ("change", "right_change")}
                yield cast("dict[str, float]", numbers | {k: v for k, v in further.items() if v is not None})


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _share(found: Any) -> float | None:
    """The value of a share with its interval; None where there is none."""
    value = found.get("value") if isinstance(found, dict) else None
    return value if _finite(value) else None


def _record(path: Path, keys: set[str]) -> dict[str, Any] | None:
    """A report of a measurement, as its command writes it; None where the file is something else, or not there."""
    try:
        there = path.stat()
        found = _read(path, there.st_mtime_ns, there.st_size, there.st_ino)
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and keys <= found.keys() else None


@lru_cache(maxsize=64)
def _read(path: Path, _changed: int, size: int, _node: int) -> Any:
    """The JSON in a file as it was at that change: whoever opens a view asks for it again."""
    return json.loads(path.read_text(encoding="utf-8")) if size <= LARGEST_REPORT else None


def query(exchange: Exchange) -> Mapping[str, list[str]]:
    """The parameters behind the question mark. Raises BadRequest where they are too many."""
    try:
        return parse_qs(exchange.scope["query_string"].decode("latin-1"), max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise BadRequest(Violation("query", "has too many parameters; write fewer")) from None


def one(found: Mapping[str, list[str]], name: str, default: str = "") -> str:
    """The last value of a parameter."""
    return found.get(name, [default])[-1]


def number(text: str, name: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`. Raises BadRequest."""
    if not text.isdecimal() or len(text) > 15 or not low <= int(text) <= high:
        raise BadRequest(Violation(name, f"write a whole number from {low} to {high}"))
    return int(text)
