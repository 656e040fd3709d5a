"""The lexicon: categories of nouns and verbs, such as cities or verbs of saying, and base forms of words.

It follows from WordNet, where that is on the machine (`wordnet`). Its text's first line lists the categories with `; `
between them. Each further line has the indices of some of them, or of none, a tab, and the words that belong to these;
`_` joins the two words of a name. The line that begins with `=` lists irregular forms as `form=base`.
"""

from __future__ import annotations

from functools import lru_cache

from monitor.dictionary.labeller.word_classes import FUNCTION_WORDS
from monitor.dictionary.labeller.wordnet import lexicon_text, phrases, wordnet_folder

_ENDINGS = (
    ("men", "man"),
    ("ies", "y"),
    ("ied", "y"),
    ("es", ""),
    ("es", "e"),
    ("s", ""),
    ("ed", ""),
    ("ed", "e"),
    ("ing", ""),
    ("ing", "e"),
)
_DOUBLED = ("ed", "ing")


class Lexicon:
    """Categories and base forms of English words."""

    def __init__(self, text: str) -> None:
        """`text` is laid out as said above."""
        first, *lines = text.splitlines()
        self.phrases = tuple(first.split("; "))
        """The names of the categories, in the plural."""
        self._categories: dict[str, tuple[str, ...]] = {}
        self._irregular: dict[str, str] = {}
        for line in lines:
            head, _, words = line.partition("\t")
            if head == "=":
                self._irregular = dict(pair.split("=") for pair in words.split())
                continue
            group = tuple(self.phrases[int(index)] for index in head.split(",") if index)
            for word in words.split():
                self._categories[word] = self._categories.get(word, ()) + group
        self.names = frozenset(word for word in self._categories if "_" in word)
        """Names of two words, joined by `_`."""

    def categories(self, word: str) -> tuple[str, ...]:
        """The categories of a word in lower case or of its base form; none for function words."""
        if word in FUNCTION_WORDS:
            return ()
        return self._categories.get(word) or self._categories.get(self.base(word), ())

    @lru_cache(maxsize=200_000)  # noqa: B019 - one lexicon lives as long as the process
    def base(self, word: str) -> str:
        """The base form of a word in lower case; the word itself where none is known."""
        if word in FUNCTION_WORDS or not word.isalpha():
            return word
        if word in self._irregular:
            return self._irregular[word]
        found = [base for base in _bases(word) if base in self._categories]
        return word if not found or self._is_base(word) else found[0]

    def _is_base(self, word: str) -> bool:
        return bool(self._categories.get(word)) and not word.endswith(("s", "ed", "ing"))


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The lexicon of this machine; without WordNet it knows the names of categories and no words."""
    folder = wordnet_folder()
    return Lexicon("; ".join(phrases()) if folder is None else lexicon_text(folder))


def _bases(word: str) -> list[str]:
    """What a regular form may be a form of."""
    found = []
    for ending, instead in _ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and (len(stem) > 2 or ending == "men"):
            if ending in _DOUBLED and stem[-1] == stem[-2]:
                found.append(stem[:-1])
            found.append(stem + instead)
    return found
