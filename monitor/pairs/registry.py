"""The pairs that can be opened by name, and the choice between a name and a model and dictionary of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monitor.errors import ConfigurationError
from monitor.pairs import smollm2, tiny
from monitor.pairs.named_pair import NamedPair

DEFAULT = "smollm2"
"""The pair that is opened where nobody names one."""

_PAIRS = {pair.name: pair for pair in (smollm2.PAIR, tiny.PAIR)}


def names() -> tuple[str, ...]:
    """The names of all pairs."""
    return tuple(sorted(_PAIRS))


def complete() -> tuple[str, ...]:
    """The names of those pairs whose dictionary this installation has."""
    return tuple(name for name in names() if _PAIRS[name].dictionary.is_dir())


def named(name: str | None = None) -> NamedPair:
    """The pair of a name, or the default one; ConfigurationError that says which there are."""
    pair = _PAIRS.get(name or DEFAULT)
    if pair is None:
        there = "; ".join(f"{one.name}: {one.what}" for one in _PAIRS.values())
        raise ConfigurationError(f"there is no pair {name!r}. There are {there}")
    return pair


def register(pair: NamedPair) -> None:
    """Make a pair known in this process by its name, in place of another of the same name."""
    _PAIRS[pair.name] = pair


def unregister(name: str) -> None:
    """Forget a pair."""
    _PAIRS.pop(name, None)


@dataclass(frozen=True)
class ChosenPair:
    """What is to be opened."""

    model: str
    """A folder, a file, or a name on the hub."""
    dictionary: str | Path
    pair: NamedPair | None = None
    """The pair whose dictionary it is, where that has a name."""

    def name(self, digest: str) -> str:
        """The name of the pair, if the model that was loaded, of this digest, is the pair's own; otherwise empty."""
        if self.pair is None:
            return ""
        own = digest == self.pair.digest if self.pair.digest else _same(self.model, self.pair.weights())
        return self.pair.name if own else ""

    def note(self, digest: str) -> str:
        """What must be known where the pair's dictionary is put to another model than its own; otherwise empty."""
        if self.pair is None or self.name(digest):
            return ""
        pair, last = self.pair, self.model.rstrip("/").rpartition("/")[2]
        original = bool(pair.original) and last.lower() == pair.original.rpartition("/")[2].lower()
        what = "the unquantised original of" if original else "not"
        return (
            f"{self.model} is {what} the model of the pair {pair.name} ({pair.what}): with other weights or files it "
            f"is another model, of the digest {digest[:19]}…. The dictionary was trained on the pair's, and locks for "
            f"{pair.name} are refused here; `sae-monitor policy recheck FOLDER --pair {pair.name} --model {self.model}`"
            " tells whether they hold for this model"
        )


def chosen_pair(
    pair: str | None = None, model: str | Path | None = None, dictionary: str | Path | None = None
) -> ChosenPair:
    """What to open, of a name, or of a model and a dictionary; the default pair where nothing is given.

    A model beside the name of a pair takes the place of the pair's weights. The name of a pair may also stand alone in
    the place of the model. Raises ConfigurationError where too little or too much is given, and where the pair is
    unknown; ModelError and DictionaryError where parts of it are not here.
    """
    if dictionary is not None:
        _check_own(pair, model, dictionary)
        return ChosenPair(str(model), dictionary, _owner(dictionary))
    if pair is None and model is not None:
        if str(model) not in _PAIRS:
            raise ConfigurationError(
                f"which dictionary reads {model}? One only fits the model that it was trained on: give --model and "
                f"--dictionary together, or --pair NAME ({' or '.join(names())}), or none of them"
            )
        pair, model = str(model), None
    found = named(pair)
    # Nobody is to fetch weights for which there is no dictionary.
    own = found.dictionary_path()
    return ChosenPair(str(model or found.model_path()), own, found)


def chosen_dictionary(pair: str | None = None, dictionary: str | Path | None = None) -> str | Path:
    """The dictionary alone, of a name or as given; that of the default pair where nothing is given."""
    if dictionary is None:
        return named(pair).dictionary_path()
    if pair is not None:
        _refuse_both(pair, dictionary)
    return dictionary


def _check_own(pair: str | None, model: str | Path | None, dictionary: str | Path) -> None:
    if pair is not None:
        _refuse_both(pair, dictionary)
    if model is None:
        raise ConfigurationError(
            f"which model does {dictionary} read? Give --model and --dictionary together, or --pair NAME "
            f"({' or '.join(names())}), or none of them"
        )


def _refuse_both(pair: str, dictionary: str | Path) -> None:
    raise ConfigurationError(
        f"--pair {pair} brings its own dictionary, so --dictionary {dictionary} cannot stand beside it: leave out one "
        "of them, and give --model with --dictionary"
    )


def _owner(dictionary: str | Path) -> NamedPair | None:
    """The pair that a dictionary belongs to, where it is one's that has a name."""
    return next((pair for pair in _PAIRS.values() if _same(dictionary, pair.dictionary)), None)


def _same(one: str | Path, other: Path | None) -> bool:
    """Whether both stand for the same place on this machine."""
    return other is not None and Path(one).exists() and Path(one).resolve() == other.resolve()
