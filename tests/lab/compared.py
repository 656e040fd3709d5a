"""Two policy sets on four texts."""

from monitor.lab.compare_sets import ComparedSets, SetOutcome, compare
from monitor.records import Action

TEXTS = ["plain", "<b>bold</b>\x1b[31m", "third", "fourth"]


def outcome(*fired, action=Action.ALLOW):
    return SetOutcome(frozenset(fired), action)


def compared():
    """Set A and set B on these texts, with rules that only one of them has."""
    a = [outcome("p/x"), outcome("p/x", action=Action.ALERT), outcome(), outcome("p/old")]
    b = [outcome("p/x"), outcome(), outcome("p/x", "p/new", action=Action.BLOCK), outcome()]
    result = compare(a, b, {"p/x", "p/old"}, {"p/x", "p/new"})
    return ComparedSets(TEXTS, ["s"] * 4, ("sha256:a", "sha256:b"), result)
