"""A tolerant reading of a file that has mistakes, so that one run tells all of them.

A part of the file with wrong fields is made from its right fields, and each wrong field holds `WRONG`. A check that
uses such a field raises `Unknown` and reports nothing, since pydantic reports the field already.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from copy import copy
from functools import cache
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError, create_model, model_validator

Made = TypeVar("Made", bound=BaseModel)
Path = tuple[str | int, ...]

ALIKE = 0.6
"""Least similarity (`difflib`) at which an unknown word counts as a misspelt field name."""


class Unknown(ValueError):
    """Raised where a check needs a value that is not known, since its field is wrong.

    It is a ValueError, so that pydantic turns one from a validator of a field into a ValidationError.
    """


class _Wrong:
    """Stands in for the value of a wrong field. Every use raises `Unknown`, except identity tests such as `is None`."""

    def _unknown(self, *_: object) -> NoReturn:
        raise Unknown

    def __getattribute__(self, name: str) -> NoReturn:
        # vLLM asks every object of every module for this.
        raise AttributeError(name) if name == "__dict__" else Unknown

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _unknown
    __len__ = __iter__ = __getitem__ = __contains__ = __call__ = _unknown


WRONG: Any = _Wrong()


class Partial:
    """One tolerant reading of a document: it makes every part that it can, and collects what their checks refuse."""

    def __init__(self, data: object) -> None:
        """`data` are the plain values of a document; they must live as long as this does."""
        self._paths = dict(_places(data, ()))
        self._made: dict[tuple[int, type], Any] = {}
        self.found: list[tuple[Path, str]] = []
        """Path and text of everything refused."""

    def part(
        self,
        model: type[Made],
        data: Any,
        handler: Callable[[Any], Made],
        refused: Callable[[Made], list[dict[str, Any]]],
    ) -> Made:
        """Make a part of the file, with `WRONG` for wrong fields. Raises ValidationError for data without fields."""
        key = (id(data), model)
        if key in self._made:
            return self._made[key]  # type: ignore[no-any-return]
        strange: set[str] = set()
        try:
            made = handler(data)
        except ValidationError as error:
            if not isinstance(data, dict) or any(not one["loc"] for one in error.errors()):
                raise
            wrong = {str(one["loc"][0]) for one in error.errors()}
            made, strange = self._without(model, data, wrong)
        self._made[key] = made
        above = self._paths.get(id(data), ())
        found = refused(made)
        _mark(made, {str(word) for one in found for word in (*one["at"][:1], *one["unsure"])})
        for one in found:
            # What is missed may be what an unknown word was meant to be.
            if not strange or (one["at"] and one["at"][0] in data):
                self.found.append(((*above, *one["at"]), str(one["text"])))
        return made

    def _without(self, model: type[Made], data: dict[str, Any], wrong: set[str]) -> tuple[Made, set[str]]:
        """The part without its wrong fields, and words in it that no field is like."""
        fields = {field.alias or name: name for name, field in model.model_fields.items()}
        meant = {word: _meant(word, fields) for word in wrong if word not in fields}
        kept = {word: value for word, value in data.items() if word not in wrong}
        made = _lenient(model).model_validate(kept, context=self)
        _mark(made, wrong | (set(meant.values()) - set(data)))
        made.__pydantic_fields_set__.update(fields[word] for word in wrong & set(data) & set(fields))
        object.__setattr__(made, "__class__", model)
        return made, {word for word, like in meant.items() if not like}  # type: ignore[return-value]


def _mark(made: BaseModel, words: set[str]) -> None:
    """Make fields unknown, by the words that stand for them in a file."""
    for name, field in type(made).model_fields.items():
        if (field.alias or name) in words:
            made.__dict__[name] = WRONG


def _meant(word: str, fields: dict[str, str]) -> str:
    return next(iter(difflib.get_close_matches(word, fields, n=1, cutoff=ALIKE)), "")


def _places(data: object, path: Path) -> Iterator[tuple[int, Path]]:
    if isinstance(data, dict):
        yield id(data), path
        for key, value in data.items():
            yield from _places(value, (*path, key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _places(value, (*path, i))


@cache
def _lenient(model: type[BaseModel]) -> type[BaseModel]:
    """A model like this one that needs none of its fields and checks nothing between them."""

    def unchecked(cls: type[BaseModel], data: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(data)

    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if field.is_required():
            optional = copy(field)
            optional.default = None
            fields[name] = (field.annotation, optional)
    validators: dict[str, Any] = {"_checked": model_validator(mode="wrap")(classmethod(unchecked))}  # type: ignore[arg-type]
    return create_model(
        model.__name__,
        __base__=model,
        __validators__=validators,
        # Descriptions are read from the source file, which an upgrade may change while a server runs.
        __cls_kwargs__={"use_attribute_docstrings": False},
        **fields,
    )
