"""Finds stale locks: those that do not fit their policy, or the running model and dictionary.

Every difference is a problem at the line that causes it, with advice: mostly the command that writes a new lock.
"""

from __future__ import annotations

from monitor.policy.files.examples import examples_digest
from monitor.policy.files.lock import LockedRule, LockModel, as_written
from monitor.policy.files.lock_folders import LOCKS, locks_of
from monitor.policy.files.pins import reads_the_same
from monitor.policy.files.source import Running, Source, digests_missing
from monitor.policy.files.yaml_document import Problem
from monitor.policy.schema.policy import AnyPooling, AskedRate, CheckModel, pooling_of


def mend(source: Source, running: Running | None = None) -> str:
    """Advice: the command that writes a new lock, for what runs where that is known."""
    flags = "--model MODEL --dictionary DICTIONARY" if running is None else running.flags
    return f"run `sae-monitor policy fit {source.path.parent} {flags}`"


def disagreements(source: Source, running: Running) -> list[Problem]:
    """Every problem between a policy, its lock and what runs."""
    found = []
    pinned = source.model.dictionary
    if pinned is not None and pinned != running.dictionary:
        message = f"the features are pinned to another dictionary than the running {running.dictionary[:19]}…"
        found.append(
            source.document.problem(["dictionary"], message, "pin features of the running dictionary")
        )
    if source.model.needs_lock and source.lock is None:
        found.append(_without_lock(source, running))
    if source.lock is not None and source.lock_document is not None and source.model.needs_lock:
        found.extend(_stale(source, source.lock, running))
    return found + wrong_width(source, running)


def _without_lock(source: Source, running: Running) -> Problem:
    """That none of a policy's locks is of what runs, what those that are there are of, and what to do."""
    differs = {pair: digests_missing(path, running) for pair, path in locks_of(source.path).items()}
    message = (
        f"`{source.model.metadata.name}` has no lock for the running model {_shown(running.model)} and dictionary "
        f"{_shown(running.dictionary)}"
    )
    if not differs:
        message += ": it was never fitted"
    for pair, what in differs.items():
        message += f"; {LOCKS}/{pair} is of another {' and '.join(what)}" if what else ""
    hint = mend(source, running)
    if ("model",) in differs.values():
        hint = (
            f"run `sae-monitor policy recheck {source.path.parent} {running.flags}`, which tells whether a lock for "
            f"the same dictionary on another model holds for this one; or {hint}"
        )
    return source.document.problem(["metadata", "name"], message, hint)


def _stale(source: Source, lock: LockModel, running: Running) -> list[Problem]:
    document, concept = source.lock_document, source.model.concept
    assert document is not None
    now = running.dictionary
    claims = [
        (["policy"], lock.policy, source.model.metadata.name, "is the lock of another policy"),
        (["model", "digest"], lock.model.digest, running.model, "was fitted to another model"),
        (["dictionary", "digest"], lock.dictionary.digest, now, "was fitted to another dictionary"),
    ]
    if concept is not None:
        claims.append(
            (["examples"], lock.examples, examples_digest(source.examples), "was fitted to other examples")
        )
        if concept.detector is not None:
            claims.append((["detector"], lock.detector, concept.detector, "holds another detector"))
    found = [
        document.problem(
            path,
            f"the lock of `{source.model.metadata.name}` {what}: {_shown(then)}, not {_shown(now)}",
            mend(source, running),
        )
        for path, then, now, what in claims
        if then != now
    ]
    return found + stale_checks(source, lock, running)


def stale_checks(source: Source, lock: LockModel, running: Running | None = None) -> list[Problem]:
    """Problems of rules and conditions whose thresholds are missing in the lock, or were set for other settings."""
    found, hint = [], mend(source, running)
    for i, rule in enumerate(source.model.rules):
        found += _stale_check(source, ["rules", i, "name"], rule.name, rule, lock.rules, hint)
    for name, part in (source.model.conditions or {}).items():
        found += _stale_check(source, ["conditions", name], name, part, lock.conditions, hint)
    return found


def _shown(value: str) -> str:
    return value if len(value) <= 20 else f"{value[:19]}…"


def _stale_check(
    source: Source,
    at: list[str | int],
    name: str,
    check: CheckModel,
    section: dict[str, LockedRule],
    hint: str,
) -> list[Problem]:
    if not isinstance(check.threshold, AskedRate):
        return []
    locked = section.get(name)
    what = "condition" if at[0] == "conditions" else "rule"
    if locked is None:
        message = f"the lock has no threshold for the {what} `{name}`"
        return [source.document.problem(at, message, hint)]
    asked = (
        _written(check.pooling),
        check.for_,
        as_written(check.threshold.false_positive_rate),
        check.signal,
    )
    then = (_written(locked.pooling), locked.for_, as_written(locked.asked_rate), locked.signal)
    if asked != then:
        message = f"`{name}` changed its pooling, `for`, signal or rate since it was fitted"
        return [source.document.problem(at, message, hint)]
    if not reads_the_same(source.model, check, locked):
        message = f"the features or the probe that `{name}` reads are not those that it was fitted with"
        return [source.document.problem(at, message, hint)]
    return []


def _written(pooling: str | AnyPooling) -> object:
    return as_written(pooling_of(pooling).model_dump(mode="json"))


def wrong_width(source: Source, running: Running) -> list[Problem]:
    """A problem where the probe's number of weights differs from the width of the residual stream; else none."""
    if source.weights is None or running.width is None or len(source.weights) == running.width:
        return []
    own = source.model.probe is not None
    document = source.document if own else source.lock_document
    assert document is not None
    message = f"the probe has {len(source.weights)} weights; the running model is {running.width} wide"
    hint = "write a probe of the running model" if own else mend(source, running)
    return [document.problem(["probe"], message, hint)]
