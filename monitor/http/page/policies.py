"""Policies: what runs and who asks, each policy with its card, and drafts that are checked, tried and saved."""

from __future__ import annotations

import asyncio
import base64
import math
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from monitor import __version__
from monitor.errors import BadRequest, InputError, NotFound, Violation
from monitor.http.calls import Exchange
from monitor.http.fields import Fields
from monitor.http.page.resources import CallerLeft, Gone, PageResources
from monitor.lab.pair import Pair
from monitor.lab.readings import PairReader
from monitor.policy.files.lock import CURVE, LockedRule, LockModel
from monitor.policy.files.lock_folders import lock_path, pair_folders
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Source, read_source
from monitor.policy.files.yaml_document import MAX_BYTES, PolicyProblems, Problem, read_document, read_text
from monitor.policy.fit.lengths import EDGES
from monitor.policy.policy import Policy, Rule
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.explain import Explanation, explain
from monitor.policy.schema.policy import FILE, NAME
from monitor.policy.schema.threshold import thresholds_by_length
from monitor.records import Mode, Phase
from monitor.rpc.access import roles
from monitor.rpc.wire.problems import Problems

LARGEST_DRAFT = 64 << 10
"""Bytes of a draft: it is parsed again and again while somebody writes."""
MOST_TEXTS = 50
"""Texts that a draft is tried on at once."""
LONGEST_TRIED = 20_000
"""Characters of such a text."""


class PagePolicies:
    """`/api/about`, `/api/policies…` and `/api/drafts…`."""

    def __init__(self, resources: PageResources) -> None:
        self._resources = resources

    async def about(self, exchange: Exchange) -> None:
        """`GET /api/about`: what runs, who asks, and what that caller may do."""
        resources, parts = self._resources, self._resources.parts
        settings, who, now = resources.settings, roles.caller.get(), parts.active.now
        contents = parts.books.ledger.contents
        await exchange.json(
            {
                "version": __version__,
                "caller": who.name,
                "roles": sorted(who.roles),
                "logs_in": parts.checks_callers,
                "model": resources.model,
                "context": parts.runtime.context,
                "digests": asdict(now.digests),
                "features": resources.book.dictionary.autoencoder.features if resources.book else None,
                "inspects": resources.inspects,
                "generates": settings.max_running > 0,
                "caller_clamps": settings.caller_clamps,
                "saves": resources.overlay is not None,
                "log": {
                    "kept": parts.books.place != "off",
                    "text": contents.text is not None,
                    "readings": contents.readings,
                },
                "encrypted": settings.tls_certificate is not None,
                "listen": settings.listen,
                "http_listen": settings.http_listen,
                "policies": [_shown(policy) for policy in now.policies.policies],
                "costs": await asyncio.to_thread(resources.costs),
            }
        )

    async def one(self, exchange: Exchange) -> None:
        """`GET /api/policies/NAME`: its text and its lock's card. A name that is not loaded may be that of a draft.

        Of a policy that has a draft, `text` is the draft's and `beneath` that of the policies' own folder.
        """
        name = _checked_name(exchange.path["name"])
        await exchange.json(await self._resources.work(exchange, lambda _: self._told(name)))

    async def drafts(self, exchange: Exchange) -> None:
        """`GET /api/drafts`: names of the policies that were saved here."""
        overlay = self._resources.overlay
        await exchange.json({"drafts": overlay.policy_names() if overlay is not None else []})

    async def check(self, exchange: Exchange) -> None:
        """`POST /api/drafts/check`: every problem of a draft with its line, or none."""
        name, text, _, _ = await self._draft(exchange)
        await exchange.json(
            {"problems": await self._resources.work(exchange, lambda _: self._problems(name, text))}
        )

    async def attempt(self, exchange: Exchange) -> None:
        """`POST /api/drafts/try`: how near each rule of a draft comes on some texts."""
        name, text, texts, phase = await self._draft(exchange)
        if not texts:
            raise BadRequest(Violation("texts", "is empty; write at least one text"))
        pair = self._resources.reading
        self._resources.charge(texts)
        await exchange.json(
            await self._resources.work(
                exchange, lambda gone: self._tried(pair, name, text, texts, phase, gone)
            )
        )

    async def save(self, exchange: Exchange) -> None:
        """`POST /api/drafts/save`: write a draft without problems into the overlay."""
        name, text, _, _ = await self._draft(exchange)
        overlay = self._resources.overlay
        if overlay is None:
            raise InputError("nothing can be saved here: the operator has set no page_overlay")

        def work(_: Gone) -> dict[str, Any]:
            if problems := self._problems(name, text, fitted=False):
                return {"saved": False, "problems": problems}
            with self._workspace(name, text) as path:
                beside = list(path.parent.glob("*.jsonl"))
                return {"saved": True, "problems": [], "file": overlay.save_policy(name, text, beside)}

        await exchange.json(await self._resources.work(exchange, work))

    async def _draft(self, exchange: Exchange) -> tuple[str, str, tuple[str, ...], Phase]:
        body = await self._resources.calls.read(exchange)
        problems = Problems()
        fields = Fields(body, problems)
        name, text, texts, phase = (
            fields.text("name"), fields.text("text"), fields.texts("texts"), fields.text("phase", "prompt"),
        )  # fmt: skip
        fields.finish()
        if not re.fullmatch(NAME, name):
            problems.add("name", "write lower-case words with hyphens, such as power-seeking")
        if len(text.encode("utf-8", "replace")) > LARGEST_DRAFT:
            problems.add(
                "text", f"is larger than {LARGEST_DRAFT} bytes; put examples into a file of their own"
            )
        if len(texts) > MOST_TEXTS or any(len(one) > LONGEST_TRIED for one in texts):
            problems.add("texts", f"write at most {MOST_TEXTS} texts of {LONGEST_TRIED} characters")
        if phase not in list(Phase):
            problems.add("phase", "write prompt or response")
        problems.raise_any()
        return name, text, texts, Phase(phase)

    def _problems(self, name: str, text: str, *, fitted: bool = True) -> list[dict[str, Any]]:
        """Every problem of a draft; with `fitted` also that it lacks a lock for what runs."""
        try:
            with self._workspace(name, text) as path:
                self._resolved(path) if fitted else read_source(path, None)
        except PolicyProblems as error:
            return [_problem(one) for one in error.problems]
        return []

    def _tried(
        self, pair: Pair, name: str, text: str, texts: tuple[str, ...], phase: Phase, gone: Gone
    ) -> dict[str, Any]:
        try:
            with self._workspace(name, text) as path:
                policy = self._resolved(path)
        except PolicyProblems as error:
            return {"problems": [_problem(one) for one in error.problems], "results": []}
        reader, plan = PairReader(pair), PolicySet((policy,), "").watch
        results = []
        for one in texts:
            if gone():
                raise CallerLeft
            ids, readings = reader.watched(reader.ids(one), plan)
            spelt = reader.pair.speller.pieces(ids)
            found = explain((policy,), readings, phase) if len(ids) > 1 else ()
            results.append({"text": one, "rules": [_explained(each, spelt) for each in found]})
        return {"problems": [], "results": results}

    def _resolved(self, path: Path) -> Policy:
        """The policy of a file as it would run here; PolicyProblems."""
        problems: list[Problem] = []
        policy = resolve(read_source(path, self._resources.running), self._resources.running, problems)
        if policy is None:
            raise PolicyProblems(problems)
        return policy

    @contextmanager
    def _workspace(self, name: str, text: str) -> Iterator[Path]:
        """A folder with the draft, and with copies of the examples and the locks that belong to its name."""
        with TemporaryDirectory(prefix="sae-monitor-draft-") as folder:
            path = Path(folder) / f"{name}.yaml"
            path.write_text(text, encoding="utf-8")
            for source in reversed(self._sources()):
                _copy_beside(source, path)
            yield path

    def _sources(self) -> list[Path]:
        """The folders that policies are looked for in, the overlay's first."""
        overlay = self._resources.overlay
        return [*([overlay.policies] if overlay is not None else []), self._resources.folder]

    def _told(self, name: str) -> dict[str, Any]:
        loaded = {policy.name: policy for policy in self._resources.parts.active.now.policies.policies}
        path = next((f / f"{name}.yaml" for f in self._sources() if (f / f"{name}.yaml").is_file()), None)
        if path is None and name not in loaded:
            raise NotFound(f"there is no policy {name}")
        source, shipped = self._read(name), self._resources.folder / f"{name}.yaml"
        draft = path is not None and path.parent != self._resources.folder
        return {
            "name": name,
            "policy": _shown(loaded[name]) if name in loaded else None,
            "text": read_text(path, MAX_BYTES) if path is not None else "",
            "draft": draft,
            "beneath": read_text(shipped, MAX_BYTES) if draft and shipped.is_file() else None,
            "false_positives": list(source.model.metadata.false_positives) if source is not None else [],
            "evaluation": self._resources.evaluation(name),
            "costs": self._resources.costs().get(name, []),
            "lock": _locked(source.lock) if source is not None and source.lock is not None else None,
        }

    def _read(self, name: str) -> Source | None:
        """The policy as it lies in the folder of the policies in force; None where it cannot be read."""
        path = self._resources.folder / f"{name}.yaml"
        if not path.is_file() or self._resources.runtime is None:
            return None
        try:
            return read_source(path, self._resources.running)
        except PolicyProblems:
            return None


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise NotFound("there is no such policy")
    return name


def _copy_beside(folder: Path, draft: Path) -> None:
    """Copy what belongs to a draft from a folder of policies: its locks, and the examples that it names."""
    name = draft.stem
    named: Any = None
    try:
        data = read_document(draft).data
        named = data["concept"]["examples"]
    except (PolicyProblems, KeyError, TypeError):
        named = None
    files = [folder / named] if isinstance(named, str) and re.match(FILE, named) else []
    files += [folder / f"{name}.probe.safetensors"]
    for file in files:
        if file.is_file():
            shutil.copy(file, draft.parent)
    for place in pair_folders(folder):
        for file in (lock_path(folder / draft.name, place.name), place / f"{name}.probe.safetensors"):
            if file.is_file():
                target = draft.parent / "locks" / place.name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)


def _problem(found: Problem) -> dict[str, Any]:
    """A problem without the folder that the draft lay in for a moment."""
    return {
        "file": Path(found.file).name,
        "line": found.line,
        "column": found.column,
        "message": found.message.replace(str(Path(found.file).parent), "…"),
        "hint": found.hint.replace(str(Path(found.file).parent), "…"),
    }


def _shown(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "title": policy.title,
        "category": policy.category,
        "severity": policy.severity.value,
        "description": policy.description,
        "maturity": policy.maturity,
        "enforced": policy.enforced,
        "closed": policy.closed,
        "note": policy.note,
        "rules": [_rule(rule) for rule in policy.rules],
        "clamps": [{"feature": clamp.feature, "target": clamp.target} for clamp in policy.clamps],
        "clamps_always": policy.clamps_always,
    }


def _rule(rule: Rule) -> dict[str, Any]:
    reads = "conditions" if rule.when else rule.signal or ("probe" if rule.probe else "features")
    return {
        "name": rule.name,
        "phases": [phase.value for phase in rule.phases],
        "action": rule.action.name.lower(),
        "shadow": rule.mode is Mode.SHADOW,
        "threshold": rule.threshold,
        "lengths": [list(pair) for pair in rule.lengths],
        "benign_rate": rule.benign_rate,
        "reads": "features and probe" if rule.probe and rule.features else reads,
        "features": [[one.index, one.weight] for one in (*rule.features, *rule.explains)],
    }


def _locked(lock: LockModel) -> dict[str, Any]:
    """What the page draws of a lock."""
    card = lock.card
    return {
        "detector": lock.detector,
        "rates": list(CURVE),
        "rules": {
            name: {
                "asked_rate": rule.asked_rate,
                "benign_rate": rule.benign_rate,
                "benign_texts": rule.benign_texts,
                "caught": rule.caught,
                "multiples": _multiples(rule),
            }
            for name, rule in lock.rules.items()
        },
        "card": None
        if card is None
        else {
            "curves": card.curves,
            "methods": {name: found.model_dump() for name, found in card.methods.items()},
            "positive": card.positive,
            "negative": card.negative,
            "hard_negative": card.hard_negative,
            "groups": card.groups,
            "note": card.note,
            "negative_rate": card.negative_rate,
        },
    }


def _multiples(rule: LockedRule) -> list[float] | None:
    """How far each held-out positive of a rule comes, as a multiple of the threshold at its length, in order.

    So a rule whose thresholds are all multiplied by such a number still catches those from there on. None where the
    lock does not hold the scores.
    """
    if rule.held_out is None:
        return None
    scores = np.frombuffer(base64.b64decode(rule.held_out), "<f4").astype(np.float64)
    thresholds = _by_length(thresholds_by_length(rule.threshold))
    if not len(scores) or len(scores) % len(thresholds) or min(thresholds) <= 0:
        return None
    highest = (scores.reshape(-1, len(thresholds)) / thresholds).max(axis=1)
    return [round(float(one), 4) for one in sorted(np.maximum(highest, 0.0))]


def _by_length(pairs: Iterable[tuple[int | None, float]]) -> list[float]:
    """The threshold of each range of lengths for which a lock holds scores."""
    known = [(math.inf if up_to is None else up_to, value) for up_to, value in pairs]
    return [next(value for up_to, value in known if up_to >= edge) for edge in (*EDGES, math.inf)]


def _explained(found: Explanation, spelt: list[str]) -> dict[str, Any]:
    finite = found.score > float("-inf")
    return {
        "rule": found.rule.name,
        "action": found.rule.action.name.lower(),
        "score": found.score if finite else None,
        "threshold": found.threshold,
        "fired": found.fired,
        "tokens": [
            {
                "text": spelt[share.position],
                "score": share.score,
                "features": [one.feature for one in share.features],
            }
            for share in found.tokens
        ],
    }
