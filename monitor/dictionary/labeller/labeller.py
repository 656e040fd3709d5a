"""`Labeller`: finds the label that tells places where a feature fires from all others.

A label has one clause, or two where the second covers places that the first does not: many features have two senses.
Every candidate for a clause is one trait, alternatives of one kind, or both a trait of the word and one of its
surroundings. It is worth `c · log2(c / b)`, with `c` the share of the feature's places that it covers and `b` the share
of other places: the information that it gives of firing. Rare words that cover much are worth most, and a class of
words is worth more than a list that covers little of it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass

from monitor.dictionary.labeller.background import Background
from monitor.dictionary.labeller.label_text import Clause, Meaning, spell
from monitor.dictionary.labeller.lexicon import lexicon
from monitor.dictionary.labeller.places import TokenPlace
from monitor.dictionary.labeller.traits import AROUND, MAIN, Trait, TraitKind, all_traits

_ALTERNATIVES = {
    TraitKind.WORD: 3,
    TraitKind.BASE: 3,
    TraitKind.FIRST: 2,
    TraitKind.AFTER: 3,
    TraitKind.BEFORE: 3,
    TraitKind.NEAR: 3,
}
"""Most alternatives in a label; 1 for other kinds."""
_ALTERNATIVE = {True: 0.15, False: 0.1}
"""A further alternative has to cover this share of the places; more of them where it is about the surroundings."""
_LEAST = 0.25
"""A candidate has to cover this share of the places."""
_LEAST_SECOND = 0.15
"""A second clause has to cover this share of the places besides the first."""
_WORTH_SECOND = 3.0
"""A second clause has to be worth so much for the share of places that it covers: eight times as common there."""
_JOINED = 1.1
"""A word with its surroundings has to be worth so many times what the better of the two is worth alone."""
_CLOSE = 0.25
"""Weight of the other tokens around the feature's places against the corpus, in the share of other places."""
_PREFERRED = {
    TraitKind.NAME: 1.03,
    TraitKind.WORD: 1.02,
    TraitKind.CATEGORY: 1.0,
    TraitKind.CLASS: 1.0,
    TraitKind.BASE: 1.0,
    TraitKind.FIRST: 0.97,
    TraitKind.LAST: 0.97,
    TraitKind.INNER: 0.97,
    TraitKind.ENDING: 0.95,
    TraitKind.PART: 0.85,
    TraitKind.POSITION: 1.0,
    TraitKind.AFTER: 0.85,
    TraitKind.BEFORE: 0.85,
    TraitKind.SECOND: 0.75,
    TraitKind.NEAR: 0.85,
    TraitKind.TEXT: 0.7,
}
"""Between two candidates of nearly the same worth, a reader understands the one with the higher factor sooner."""
_PLACES = {
    TraitKind.AFTER: 3,
    TraitKind.BEFORE: 3,
    TraitKind.SECOND: 4,
    TraitKind.NEAR: 4,
    TraitKind.PART: 4,
    TraitKind.TEXT: 8,
}
"""So many places at least have to have a trait of such a kind: they are common, and few places share one by chance."""
_PROMOTED = 1.15
"""Factor of the word after, where the feature's decoder row promotes that word."""
_BITS = 8.0
"""Most bits per place: the counts of a background are too small to tell rarer traits apart."""
_SPECIES = 3
"""A category or class of words is named where so many of its words were seen; otherwise the words are."""
_JOINED_BEST = 6
"""Of words and of surroundings, so many of the best candidates are tried together."""


@dataclass(frozen=True)
class LabelCandidate:
    """A clause with its worth, and which of the feature's places it covers, a bit each."""

    clause: Clause
    worth: float
    cover: int


@dataclass(frozen=True)
class _Alternatives:
    """Alternatives of one kind: which of the feature's places they cover (a bit each), and how common they are."""

    traits: tuple[Trait, ...]
    cover: int
    elsewhere: float
    worth: float


class Labeller:
    """Labels features from places where they fire, against a background."""

    def __init__(self, background: Background) -> None:
        self._background = background

    def label(
        self,
        firing: Sequence[TokenPlace],
        silent: Sequence[TokenPlace],
        promoted: Sequence[str] = (),
    ) -> str | None:
        """The best label's text; None where no candidate covers enough.

        Args:
            firing: places where the feature fires.
            silent: places near these where it does not.
            promoted: the tokens that its decoder row promotes most.
        """
        if not firing:
            return None
        search = _Search(self._background, firing, silent, promoted)
        first = search.best(0)
        if first is None:
            return None
        second = search.best(first.cover)
        clauses = [first.clause] if second is None else _together(first.clause, second.clause)
        return self._spelt(clauses, firing, search.traits)

    def common(self, meaning: Meaning) -> float:
        """The share of the corpus's places at which a label with this meaning says that the feature fires."""
        shares = (
            self._background.joint_share(clause.main, clause.around)
            if clause.main and clause.around and not clause.hint
            else self._background.share(clause.main or clause.around)
            for clause in meaning.clauses
        )
        return min(1.0, sum(shares))

    def _spelt(
        self, clauses: Sequence[Clause], firing: Sequence[TokenPlace], traits: Sequence[Set[Trait]]
    ) -> str:
        given = []
        for clause in clauses:
            fitting = Counter(
                _example(place, clause.main)
                for place, own in zip(firing, traits, strict=True)
                if clause.score(own) == 1
            )
            given.append((clause, [word for word, _ in fitting.most_common(6) if word.strip()]))
        return spell(given, {name for clause in clauses for name in self._proper(clause.main)})

    def _proper(self, main: Sequence[Trait]) -> list[str]:
        """The names among the traits that are names elsewhere as well."""
        names = [t.value for t in main if t.kind is TraitKind.NAME and t.value.replace(" ", "").isalpha()]
        return [name for name in names if self._background.is_proper(name)]


def _together(first: Clause, second: Clause) -> list[Clause]:
    """Both clauses; one where the second only says that the surroundings of the first are not needed."""
    same = first.main and set(first.main) <= set(second.main)
    if same and first.around and not second.around:
        return [Clause(second.main, first.around, hint=True)]
    return [first, second]


def _example(place: TokenPlace, main: Sequence[Trait]) -> str:
    """The place's word, with the other word of its name where the label is of such names."""
    word = place.word
    if main and main[0].kind is TraitKind.CATEGORY:
        before, after = place.neighbour(-1), place.neighbour(1)
        for first, second in ((before, word), (word, after)):
            if first[:1].isupper() and f"{first}_{second}".lower() in lexicon().names:
                return f"{first} {second}"
    return word


class _Search:
    """The search for one feature's label."""

    def __init__(
        self,
        background: Background,
        firing: Sequence[TokenPlace],
        silent: Sequence[TokenPlace],
        promoted: Sequence[str],
    ) -> None:
        self.traits = [all_traits(place) for place in firing]
        self._background = background
        self._open = -1
        self._words = [place.word.lower() for place in firing]
        self._silent = [all_traits(place) for place in silent]
        self._promoted = tuple(token.strip().lower() for token in promoted if token.strip())
        self._cover: defaultdict[TraitKind, dict[Trait, int]] = defaultdict(dict)
        for bit, own in enumerate(self.traits):
            for trait in own:
                held = self._cover[trait.kind]
                held[trait] = held.get(trait, 0) | 1 << bit

    def best(self, covered: int) -> LabelCandidate | None:
        """The candidate of the highest worth besides what is `covered`; None where none covers enough."""
        self._open = ~covered
        least = _LEAST if not covered else _LEAST_SECOND
        mains = sorted(self._groups(MAIN), key=_by_worth)
        arounds = sorted(self._groups(AROUND), key=_by_worth)
        found = [LabelCandidate(Clause(group.traits), group.worth, group.cover) for group in mains]
        found += [LabelCandidate(Clause((), group.traits), group.worth, group.cover) for group in arounds]
        found += [
            joined
            for main in mains[:_JOINED_BEST]
            for around in arounds[:_JOINED_BEST]
            if (joined := self._join(main, around)) is not None
        ]
        enough = [c for c in found if self._covered(c.cover) >= least and c.cover.bit_count() > bool(covered)]
        best = max(enough, key=lambda candidate: candidate.worth, default=None)
        return (
            best
            if best and (not covered or best.worth >= _WORTH_SECOND * self._covered(best.cover))
            else None
        )

    def _groups(self, kinds: Sequence[TraitKind]) -> Iterator[_Alternatives]:
        for kind in kinds:
            least = _PLACES.get(kind, 1 if len(self.traits) < 4 else 2)
            own = [
                self._group((trait,), cover)
                for trait, whole in self._members(kind)
                if (cover := whole & self._open).bit_count() >= least and self._is_named(trait, cover)
            ]
            own.sort(key=_by_worth)
            if own:
                yield from own[:3]
                yield self._with_alternatives(own, _ALTERNATIVES.get(kind, 1))

    def _members(self, kind: TraitKind) -> Iterator[tuple[Trait, int]]:
        """The traits of a kind with the places that have them; words and names are alternatives of each other."""
        if kind is not TraitKind.WORD:
            yield from self._cover[kind].items()
            return
        names = self._cover[TraitKind.NAME]
        yield from names.items()
        proper = {
            (trait.value.lower(), cover)
            for trait, cover in names.items()
            if self._background.is_proper(trait.value)
        }
        yield from ((t, c) for t, c in self._cover[TraitKind.WORD].items() if (t.value, c) not in proper)

    def _with_alternatives(self, own: Sequence[_Alternatives], most: int) -> _Alternatives:
        best = own[0]
        for other in own[1:40]:
            if len(best.traits) == most:
                break
            fresh = other.cover & ~best.cover
            if fresh.bit_count() >= 2 and self._covered(fresh) >= _ALTERNATIVE[best.traits[0].kind in AROUND]:
                joined = self._group((*best.traits, *other.traits), best.cover | other.cover)
                if joined.worth > best.worth:
                    best = joined
        return best

    def _is_named(self, trait: Trait, cover: int) -> bool:
        """False for a trait that says less than the words themselves."""
        if trait.kind in (TraitKind.CATEGORY, TraitKind.CLASS, TraitKind.ENDING):
            words = {word for bit, word in enumerate(self._words) if cover >> bit & 1}
            return len(words) >= _SPECIES or not next(iter(words))[0].isalnum()
        if trait.kind is TraitKind.BASE:
            return len({word for bit, word in enumerate(self._words) if cover >> bit & 1}) > 1
        return trait.kind is not TraitKind.WORD or not trait.value.isspace()

    def _group(self, traits: tuple[Trait, ...], cover: int) -> _Alternatives:
        elsewhere = self._elsewhere(
            self._background.share(traits), lambda own: any(trait in own for trait in traits)
        )
        worth = self._worth(cover, elsewhere) * _PREFERRED[traits[0].kind]
        if traits[0].kind is TraitKind.BEFORE and self._promotes(traits):
            worth *= _PROMOTED
        return _Alternatives(traits, cover, elsewhere, worth)

    def _join(self, main: _Alternatives, around: _Alternatives) -> LabelCandidate | None:
        cover = main.cover & around.cover
        if not cover:
            return None
        clause = Clause(main.traits, around.traits)
        elsewhere = self._elsewhere(
            self._background.joint_share(main.traits, around.traits), lambda own: clause.score(own) == 1
        )
        factor = _PREFERRED[main.traits[0].kind] * _PREFERRED[around.traits[0].kind] ** 0.25 / _JOINED
        return LabelCandidate(clause, self._worth(cover, elsewhere) * factor, cover)

    def _elsewhere(self, share: float, fits: Callable[[Set[Trait]], bool]) -> float:
        """The share of other places: of the corpus, and of the places close to the feature's own."""
        if not self._silent:
            return share
        close = sum(map(fits, self._silent)) / len(self._silent)
        return (1 - _CLOSE) * share + _CLOSE * close

    def _covered(self, cover: int) -> float:
        return cover.bit_count() / len(self.traits)

    def _worth(self, cover: int, elsewhere: float) -> float:
        # One more place that is not covered: two of three places are less certain than twenty of thirty.
        covered = self._covered(cover) * len(self.traits) / (len(self.traits) + 1)
        return covered * min(_BITS, math.log2(covered / elsewhere)) if covered > elsewhere else 0.0

    def _promotes(self, traits: Sequence[Trait]) -> bool:
        return any(trait.value.startswith(token) for trait in traits for token in self._promoted[:5])


def _by_worth(group: _Alternatives) -> tuple[float, tuple[Trait, ...]]:
    """Sorts the best first; ties by the traits, so that the same cards give the same labels."""
    return -group.worth, group.traits
