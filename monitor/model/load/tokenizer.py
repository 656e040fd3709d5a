"""`TextTokenizer`: the one place where text becomes token ids, in which text is only ever text.

A text begins as the model's own tokenizer begins it, and no part of it becomes a control token: neither by its
spelling, nor by a spelling that the tokenizer's normaliser turns into one, nor through the vocabulary.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, cast

from tokenizers import Encoding, Tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import Unigram

from monitor.errors import InputError

Span = tuple[int, int]
"""First character of a token in its text, and the first behind it."""
_MARKUP = frozenset("<>[]{}|｜")
"""Characters that words do not have and that markers do."""
_PROBES = ("a", "A", "1", " a", "hello")
BYTE_PIECES = frozenset(f"<0x{value:02X}>" for value in range(256))
"""Pieces that stand for one byte of a character that the vocabulary does not have."""


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A token that stands for no text: it begins, ends or orders what the model reads."""

    token_id: int
    text: str
    """How a chat template writes it."""
    eats_before: bool
    """True where it takes the white space before it."""
    eats_behind: bool


class _Backend(Protocol):
    """A tokenizer without its control tokens."""

    def encode(self, texts: Sequence[str], *, continued: bool) -> list[list[int]]:
        """Token ids of texts; `continued` where other text stands before them."""

    def spans(self, text: str, ids: Sequence[int], *, continued: bool) -> list[Span] | None:
        """Where each token of a text stands; None where this kind of tokenizer does not tell."""


class TextTokenizer:
    """Turns text into token ids as one model's tokenizer does, but for control tokens. Thread-safe."""

    def __init__(self, tokenizer: Any, rows: int | None = None) -> None:
        """`rows`: of the model's embedding; ids from there on cannot be run. None: any id can."""
        self._tokenizer, self._rows = tokenizer, rows

    @cached_property
    def begin(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text: a BOS token, several tokens, or nothing."""
        for probe in _PROBES:
            inner = list(self._tokenizer(probe, add_special_tokens=False)["input_ids"])
            whole = list(self._tokenizer(probe, add_special_tokens=True)["input_ids"])
            for at in range(len(whole) - len(inner) + 1):
                if inner and whole[at : at + len(inner)] == inner:
                    return tuple(whole[:at])
        return ()

    @property
    def bos(self) -> int | None:
        """The first token of every text; None where a text begins with its own."""
        return self.begin[0] if self.begin else None

    @cached_property
    def control(self) -> Mapping[int, ControlToken]:
        """Control tokens by id: special ones, and added ones that are no words, such as `<tool_call>`."""
        special = set(self._tokenizer.all_special_ids) - self._unknown
        template = str(self._tokenizer.chat_template or "")
        found = {
            number: ControlToken(number, token.content, token.lstrip, token.rstrip)
            for number, token in self._tokenizer.added_tokens_decoder.items()
            if token.special or number in special or not self._is_text(number, token.content, template)
        }
        named = {
            number: ControlToken(number, str(self._tokenizer.convert_ids_to_tokens(number)), False, False)
            for number in special - found.keys()
        }
        return {number: token for number, token in (found | named).items() if number not in self._unknown}

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of control tokens. They stand for no text, and rules pass over them."""
        return frozenset(self.control)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, begun as the tokenizer begins it. Raises InputError."""
        return [*self.begin, *self.inner(text)]

    def inner(self, text: str, *, continued: bool = False) -> list[int]:
        """Token ids of a text without what the tokenizer puts before it. Raises InputError.

        `continued`: other text stands before it, so that its first word does not get the space of a text's beginning.
        """
        return self.batch([text], continued=continued)[0]

    def batch(self, texts: Sequence[str], *, continued: bool = False) -> list[list[int]]:
        """Token ids of texts, each without what the tokenizer puts before it. Raises InputError."""
        found = self._encoded(texts, continued)
        for number, ids in enumerate(found):
            if not self._suspects.isdisjoint(ids):
                parts = self._unforged(texts[number], ids, continued)
                found[number] = [number for _, own in parts for number in own]
            self._check(found[number])
        return found

    def placed(self, text: str) -> tuple[list[int], list[Span]]:
        """Token ids of a text, begun as the tokenizer begins it, and where each stands in it. Raises InputError."""
        found, spans = self.placed_inner(text)
        return [*self.begin, *found], [*((0, 0) for _ in self.begin), *spans]

    def placed_inner(self, text: str, *, continued: bool = False) -> tuple[list[int], list[Span]]:
        """Token ids as `inner` gives them, and where each stands in the text. Raises InputError."""
        found: list[int] = []
        spans: list[Span] = []
        at = 0
        (whole,) = self._encoded([text], continued)
        for part, ids in self._unforged(text, whole, continued):
            places = self._backend.spans(part, ids, continued=continued or at > 0) or self._found(part, ids)
            found += ids
            spans += [(at + start, at + end) for start, end in places]
            at += len(part)
        self._check(found)
        return found, spans

    def joined(self, parts: Sequence[str], *, continued: bool = False) -> list[int]:
        """Token ids of a text in parts, of which no token may reach from one into the next. Raises InputError."""
        found = self.inner(parts[0], continued=continued) if parts else []
        for ids in self.batch(parts[1:], continued=True):
            found += ids
        return found

    def keeps(self, text: str) -> bool:
        """True where something of a text that is not white space becomes tokens."""
        return bool(self.normalised(text).strip()) and (not self._drops or bool(self.inner(text)))

    def normalised(self, text: str) -> str:
        """A text as the tokenizer's normaliser leaves it."""
        backend = self._backend
        return backend.normalised(text) if isinstance(backend, _Fast) else text

    @cached_property
    def first_only(self) -> bool:
        """True where only the beginning of a prompt gets the space of a text's beginning, and not what stands behind
        a control token.
        """
        backend = self._backend
        return backend.first_only if isinstance(backend, _Fast) else False

    @cached_property
    def _backend(self) -> _Backend:
        if self._core is None:
            return _Slow(self._tokenizer)
        return _Fast(self._core, frozenset(self.control) | self._unknown)

    @property
    def _core(self) -> Tokenizer | None:
        core = getattr(self._tokenizer, "_tokenizer", None)
        return core if isinstance(core, Tokenizer) else None

    @cached_property
    def _unknown(self) -> frozenset[int]:
        """The token for what the vocabulary does not have, which stands for text; none where it does not only that."""
        tokenizer = self._tokenizer
        others = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        writes = self._core is None or _has_unknown(self._core)
        return frozenset({tokenizer.unk_token_id} - others - {None}) if writes else frozenset()

    @cached_property
    def _drops(self) -> bool:
        """True where the tokenizer may leave out characters that its vocabulary does not have."""
        if self._core is None:
            return True
        known = isinstance(self._core.decoder, ByteLevel) or bool(
            getattr(self._core.model, "byte_fallback", True)
        )
        return not known and not _has_unknown(self._core)

    @cached_property
    def _byte_ids(self) -> frozenset[int]:
        vocabulary = self._tokenizer.get_vocab()
        return frozenset(vocabulary[piece] for piece in BYTE_PIECES if piece in vocabulary)

    @cached_property
    def _suspects(self) -> frozenset[int]:
        """Tokens that text may have become which is not what they stand for."""
        return self.special_ids | self._unknown | self._byte_ids

    def _is_text(self, number: int, text: str, template: str) -> bool:
        """True where an added token is a word or white space, and not a marker."""
        if self._rows is not None and number >= self._rows:
            return False
        return not text.strip() or not (_MARKUP & set(text) or text in template)

    def _encoded(self, texts: Sequence[str], continued: bool) -> list[list[int]]:
        try:
            return self._backend.encode(texts, continued=continued)
        except (UnicodeError, TypeError):
            raise InputError("holds half of a surrogate pair, which is no character; leave it out") from None

    def _unforged(self, text: str, ids: list[int], continued: bool) -> list[tuple[str, list[int]]]:
        """A text in parts with the token ids of each: it is cut inside each token that is a control token."""
        if self._suspects.isdisjoint(ids) or not (cuts := self._cuts(text, ids, continued)):
            return [(text, ids)]
        texts = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
        first = self._backend.encode(texts[:1], continued=continued)
        parts = zip(texts, [*first, *self._backend.encode(texts[1:], continued=True)], strict=True)
        return [
            piece
            for number, (part, own) in enumerate(parts)
            for piece in self._unforged(part, own, continued or number > 0)
        ]

    def _cuts(self, text: str, ids: Sequence[int], continued: bool) -> list[int]:
        """Where to cut a text so that no token of it stands for more than text; InputError where it cannot be cut."""
        spans = self._backend.spans(text, ids, continued=continued)
        if spans is None:
            forged = self.special_ids.intersection(ids) or self._spelt(text, ids)
            spans = [(0, len(text))] if forged else []
        else:
            each = zip(ids, spans, strict=True)
            spans = [span for number, span in each if self._is_forged(number, text[slice(*span)])]
        cuts = []
        for start, end in dict.fromkeys(spans):
            if end - start < 2:
                raise InputError("holds text for which this tokenizer has nothing but a control token")
            # Markers are cut behind their first character; where the place is not known, the text is halved.
            cuts.append(start + 1 if end - start < len(text) else (start + end) // 2)
        return cuts

    def _is_forged(self, number: int, text: str) -> bool:
        if number in self.special_ids:
            return True
        if number in self._byte_ids:
            return len(text.strip()) > 1
        return number in self._unknown and text.strip() == self._tokenizer.unk_token

    def _spelt(self, text: str, ids: Sequence[int]) -> bool:
        """True where a text spells out a byte, or the token for what is unknown, and one of those came of it."""
        if not self._byte_ids.isdisjoint(ids) and "<0x" in text:
            return len(text) > 1
        spelling = self._tokenizer.unk_token
        return bool(self._unknown.intersection(ids)) and spelling in text and len(text) > 1

    def _check(self, ids: Iterable[int]) -> None:
        wrong = (
            number for number in ids if number is None or (self._rows is not None and number >= self._rows)
        )
        for number in wrong:
            raise InputError(
                f"holds a token (id {number}) for which the model has no embedding; use the tokenizer that the model "
                "came with"
            )

    def _found(self, text: str, ids: Sequence[int]) -> list[Span]:
        """Where tokens stand, by how much text they and those before them decode to."""
        ends = [0]
        for number in range(len(ids)):
            shown = self._tokenizer.decode(list(ids[: number + 1]), skip_special_tokens=False)
            ends.append(max(ends[-1], min(len(text), len(shown))))
        return list(pairwise(ends))


def _has_unknown(core: Tokenizer) -> bool:
    """True where text may become the token for what is unknown; bytes always have tokens of their own."""
    model = core.model
    known = isinstance(model, Unigram) or model.unk_token is not None
    return known and not isinstance(core.decoder, ByteLevel)


class _Fast:
    """A tokenizer of the `tokenizers` library, copied without its control tokens."""

    def __init__(self, core: Tokenizer, dropped: frozenset[int]) -> None:
        spec = json.loads(core.to_str())
        spec |= {"post_processor": None, "truncation": None, "padding": None}
        words = spec["model"].get("vocab", {})
        known = set(words) if isinstance(words, dict) else {piece for piece, _ in words}
        unknown = spec["model"].get("unk_token")
        spec["added_tokens"] = [
            token if kept else token | {"content": f"\ue000{secrets.token_hex(12)}{token['id']}"}
            for token in spec["added_tokens"]
            # A token for what is unknown that the vocabulary itself lacks must stay. Others that it lacks keep their
            # places, which number those behind them, under names that nobody writes.
            if (kept := token["id"] not in dropped or (token["content"] == unknown and unknown not in known))
            or token["content"] not in known
        ]
        self._first = Tokenizer.from_str(json.dumps(spec))
        self._behind, schemes = self._first, set(_prefixes(spec))
        self.first_only = schemes == {"first"}
        if schemes:
            self._behind = Tokenizer.from_str(json.dumps(cast(dict[str, Any], _unprefixed(spec))))

    def encode(self, texts: Sequence[str], *, continued: bool) -> list[list[int]]:
        core = self._behind if continued else self._first
        if len(texts) == 1:
            return [list(core.encode(texts[0], add_special_tokens=False).ids)]
        return [list(one.ids) for one in core.encode_batch_fast(list(texts), add_special_tokens=False)]

    def spans(self, text: str, ids: Sequence[int], *, continued: bool) -> list[Span] | None:
        core = self._behind if continued else self._first
        found: Encoding = core.encode(text, add_special_tokens=False)
        return list(found.offsets) if found.ids == list(ids) else None

    def normalised(self, text: str) -> str:
        normaliser = self._behind.normalizer
        return text if normaliser is None else str(normaliser.normalize_str(text))


class _Slow:
    """A tokenizer written in Python, asked for the pieces of a text without a look at its control tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str], *, continued: bool) -> list[list[int]]:
        del continued  # such a tokenizer has no other way to begin
        tokenizer = self._tokenizer
        pieces = [tokenizer.tokenize(text, split_special_tokens=True) for text in texts]
        return [list(tokenizer.convert_tokens_to_ids(found)) for found in pieces]

    def spans(self, text: str, ids: Sequence[int], *, continued: bool) -> list[Span] | None:
        """It does not tell."""
        del text, ids, continued
        return None


def _nodes(spec: object) -> Iterator[dict[str, Any]]:
    """Every normaliser and pre-tokenizer of a specification."""
    if isinstance(spec, dict):
        yield spec
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ():
        if isinstance(part, dict | list):
            yield from _nodes(part)


def _prefixes(spec: Mapping[str, Any]) -> Iterator[str]:
    """How the parts of a tokenizer put a space before a text's first word: `always` or `first`."""
    for node in _nodes([spec.get("normalizer"), spec.get("pre_tokenizer")]):
        match node.get("type"):
            case "Metaspace" if (scheme := node.get("prepend_scheme", "always")) != "never":
                yield scheme
            case "Prepend":
                yield "always"
            case "ByteLevel" if node.get("add_prefix_space"):
                yield "always"


def _unprefixed(spec: object) -> object:
    """A specification whose parts put nothing before a text's first word."""
    if isinstance(spec, list):
        return [_unprefixed(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    match spec.get("type"):
        case "Metaspace":
            return spec | {"prepend_scheme": "never"}
        case "Prepend":
            return {"type": "Sequence", "normalizers": []}
        case "ByteLevel" if "add_prefix_space" in spec:
            return spec | {"add_prefix_space": False}
        case _:
            kept = ("normalizer", "pre_tokenizer", "normalizers", "pretokenizers")
            return {key: _unprefixed(part) if key in kept else part for key, part in spec.items()}
