"""A folder of labelled and benign texts, what its files are, and which of their rows may be learnt from.

What the files are is said by arguments, by a manifest (`manifest.yaml` in the folder, or a file elsewhere), or by the
files themselves: a file with labels is a labelled source, about what its folder is called, and one whose labels are all
0 holds benign requests.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from monitor.errors import InputError
from monitor.lab.splits import Split, group_names_source
from monitor.lab.texts import ROWS, LabelledText, first_row, kind_of, read_labelled, read_texts
from monitor.policy.files.occurrences import kind_called
from monitor.policy.files.yaml_document import PolicyProblems, Problem, YamlDocument, read_document
from monitor.policy.fit.rows import LabelledTexts

MANIFEST = "manifest.yaml"
FEWEST_ROWS = 20
"""A source with fewer measured rows is left out, and a note says so."""
EXTRA_ROWS = 500
"""Most rows that teach a policy beside its examples, in equal shares of its sources and of both labels."""
EXTRA_CHARACTERS = 400
"""Characters that are read of such a row."""
LEARN = ("all", "positives", "none")

Patterns = Sequence[str]
"""Paths below the folder; `*` stands for anything within a folder, `**` for any folders."""


@dataclass(frozen=True)
class LabelledFile:
    """One file of labelled rows."""

    path: Path
    name: str
    """Its path without suffixes, below the folder that all labelled files share: `scam/mail`."""
    about: tuple[str, ...]
    """Names or categories of the policies that it says something about."""
    learn: str = "all"
    """Which rows may be learnt from: `all`, `positives` or `none`."""
    ranks_features: bool = True
    """Whether it has a say in which features are the clearest."""
    kind: str = ""
    """What all its rows are, in place of their own `kind`."""
    benign: bool = False
    """Whether it was named as benign, so that its rows need no label."""

    @property
    def stem(self) -> str:
        """The file's name without suffixes, from which its split is drawn."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def concept(self) -> str:
        """The folder part of its name; of a file that lies in no folder, its own name."""
        return self.name.rpartition("/")[0] or self.stem

    @cached_property
    def rows(self) -> tuple[LabelledText, ...]:
        """Its rows, in the order of the file. InputError with the line where one is wrong."""
        return tuple(replace(row, kind=self.kind) if self.kind else row for row in self._read())

    def speaks_of(self, policy: str, category: str) -> bool:
        """Whether it is about a policy, by the policy's name or category."""
        return policy in self.about or category in self.about

    def group_of(self, row: LabelledText) -> str:
        """What ties a row to others, in words that no other source uses; the text where the row has no group."""
        alone = not row.group or group_names_source(self.stem, row.group)
        return f"{self.stem} {row.text if alone else row.group}"

    def _read(self) -> list[LabelledText]:
        if not self.benign:
            return read_labelled(self.path)
        rows = read_texts(self.path)
        if any(row.label for row in rows):
            raise InputError(f"{self.path.name} is named as benign and has rows with label 1; leave them out")
        return [replace(row, label=False) for row in rows if row.text.strip()]


@dataclass(frozen=True)
class BenignCorpus:
    """One file of documents on which no rule should fire."""

    path: Path
    name: str
    unlike: bool = False
    """Whether it is of a kind that no fit reads, so that its rates are shown apart."""


@dataclass(frozen=True)
class DataFolder:
    """The files of a folder by what they are for; `open_data` makes one."""

    folder: Path
    sources: tuple[LabelledFile, ...]
    benign: tuple[LabelledFile, ...]
    """Requests without any concept: recall is stated where 1 % of them fire."""
    corpora: tuple[BenignCorpus, ...] = ()
    split: Split = field(default_factory=lambda: Split(0.0))
    """Which rows a fit may have read; with a share of 0, everything is measured on."""
    split_asked: bool = False
    """Whether a share was given. Where it was not, every labelled row counts, and half of each corpus."""
    averages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By a heading, the names of sources whose means are shown together."""
    notes: tuple[str, ...] = ()
    """Which files are not used, and why."""

    @property
    def halved(self) -> Split:
        """The split of what is always shared out; at one half where no share was given."""
        return self.split if self.split_asked else replace(self.split, train_fraction=0.5)

    def about(self, policy: str, category: str) -> list[LabelledFile]:
        """The sources that say something about a policy."""
        return [source for source in self.sources if source.speaks_of(policy, category)]

    def held_out(self, source: LabelledFile, most: int) -> list[LabelledText]:
        """Rows that no fit reads, in equal shares of both labels, at most so many; groups as `group_of` says."""
        kept = [row for row in source.rows if self.split.side(source.stem, row.group, row.text) == "heldout"]
        ranked = sorted(kept, key=lambda row: _drawn(row.text))
        return [
            replace(row, group=source.group_of(row))
            for label in (True, False)
            for row in [row for row in ranked if row.label is label][: most // 2]
        ]

    def requests(self, most: int) -> dict[str, list[str]]:
        """Benign texts by source, about `most` in all. No fit reads them, so none are held back."""
        if not self.benign:
            raise InputError(
                f"{self.folder} holds no benign texts, and recall is stated where 1 % of them fire: name files with "
                "--benign, or add a file whose labels are all 0"
            )
        share = -(-most // len(self.benign))
        return {
            source.name: [row.text for row in sorted(source.rows, key=lambda row: _drawn(row.text))[:share]]
            for source in self.benign
        }

    def extra_rows(self, policy: str, category: str) -> LabelledTexts:
        """Rows that may teach a policy beside its examples; empty where the folder has nothing on it."""
        sources = [source for source in self.about(policy, category) if source.learn != "none"]
        rows = [
            (source, row) for source in sources for row in self._teaching(source, EXTRA_ROWS // len(sources))
        ]
        return LabelledTexts(
            [row.text[:EXTRA_CHARACTERS] for _, row in rows],
            [bool(row.label) for _, row in rows],
            [source.group_of(row) for source, row in rows],
            [kind_called(row.kind) for _, row in rows],
        )

    def _teaching(self, source: LabelledFile, most: int) -> Iterator[LabelledText]:
        kept = [
            row
            for row in source.rows
            if (source.learn == "all" or row.label)
            and self.split.side(source.stem, row.group, row.text) == "train"
        ]
        ranked = sorted(kept, key=lambda row: _drawn(row.text))
        for label in (True, False):
            yield from [row for row in ranked if row.label is label][: most // 2]


def open_data(
    folder: str | Path,
    *,
    manifest: str | Path | None = None,
    labelled: Patterns = (),
    benign: Patterns = (),
    false_positives: Patterns = (),
    leave_out: Patterns = (),
    about: Mapping[str, Sequence[str]] | None = None,
    train_fraction: float | None = None,
    seed: int | None = None,
) -> DataFolder:
    """The files of a folder by what they are for. What an argument says takes the place of what the manifest says.

    Args:
        folder: Holds `.jsonl` and `.csv` files of rows `text`, `label` (1 or 0), and where known `group` and `kind`,
            each also as `.xz` or `.gz`.
        manifest: A YAML file that says what the files are; `manifest.yaml` in the folder where none is given.
        labelled: Patterns of labelled sources; every file whose first row has a label where none is given.
        benign: Patterns of benign requests; the labelled files whose labels are all 0 where none is given.
        false_positives: Patterns of benign documents on which false positives are counted.
        leave_out: Patterns of files that are not used.
        about: By pattern, names or categories of the policies that a source is about; otherwise the name of the
            folder in which the file lies, or of a file that lies in no folder, its own name.
        train_fraction: Share of the groups that a fit has read or may read. 0, the default, measures on everything.
        seed: Draws another split of that size.

    Raises:
        InputError: A folder or file is missing, a pattern matches nothing, or the manifest is wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}; give the folder that holds the labelled files")
    said = _manifest(folder, None if manifest is None else Path(manifest))
    given = {
        "labelled": labelled,
        "benign": benign,
        "false_positives": false_positives,
        "leave_out": leave_out,
    }
    said |= {name: tuple(patterns) for name, patterns in given.items() if patterns}
    if about:
        said["sources"] = [*said.get("sources", ()), *({"files": p, "about": a} for p, a in about.items())]
    fraction = said.get("train_fraction") if train_fraction is None else train_fraction
    if fraction is not None and not 0 <= fraction <= 1:
        raise InputError(f"the training share is {fraction:g}; give a number from 0 to 1, such as 0.5")
    split = Split(fraction or 0.0, said.get("seed", 0) if seed is None else seed)
    return _Sorter(folder, said).sorted(split, fraction is not None)


class _Sorter:
    """Sorts the files of a folder by what was said about them."""

    def __init__(self, folder: Path, said: Mapping[str, Any]) -> None:
        self._folder, self._said = folder, said
        self._notes: list[str] = []
        self._files = [path for path in sorted(folder.rglob("*")) if path.is_file() and kind_of(path) in ROWS]
        self._left = self._named("leave_out")
        if self._left:
            shown = ", ".join(str(path.relative_to(folder)) for path in sorted(self._left))
            self._notes.append(f"left out as asked: {shown}")

    def sorted(self, split: Split, asked: bool) -> DataFolder:
        """The folder; InputError where nothing in it can be used."""
        corpora, named = self._named("false_positives"), self._named("benign")
        rows = [path for path in self._labelled(corpora | named) if path not in named | self._left]
        used = sorted({*rows, *named} - self._left)
        if not used:
            raise InputError(
                f"{self._folder} holds no labelled file; give rows of text and label (1 or 0) as .jsonl or .csv, "
                "or name such files with --labelled"
            )
        made = self._sources(used, named)
        by_path = {source.path: source for source in made}
        benign = [by_path[path] for path in used if path in named]
        if not benign:
            benign = [source for source in made if not any(row.label for row in source.rows)]
        averages = {
            heading: tuple(by_path[path].name for path in sorted(self._matching(patterns)) if path in by_path)
            for heading, patterns in self._said.get("averages", {}).items()
        }
        return DataFolder(
            self._folder,
            tuple(source for source in made if source not in benign),
            tuple(benign),
            tuple(self._corpora(sorted(corpora - self._left))),
            split,
            asked,
            averages,
            tuple(self._notes),
        )

    def _labelled(self, others: set[Path]) -> list[Path]:
        if self._said.get("labelled"):
            return sorted(self._named("labelled"))
        found = []
        for path in self._files:
            if path in others | self._left:
                continue
            if (why := self._unlabelled(path)) is None:
                found.append(path)
            else:
                self._notes.append(f"{path.relative_to(self._folder)}: {why}")
        return found

    @staticmethod
    def _unlabelled(path: Path) -> str | None:
        """Why a file that nobody named is not used; None where its first row has a label."""
        try:
            row = first_row(path)
        except InputError as error:
            return f"not used: {error}"
        if row is None:
            return "not used: it is empty"
        return (
            None
            if row.label is not None
            else (
                "not used: its rows have no label; name it with --false-positives to count what fires on it"
            )
        )

    def _sources(self, paths: Sequence[Path], benign: set[Path]) -> list[LabelledFile]:
        entries = [(self._matching(_several(e["files"])), e) for e in self._said.get("sources", ())]
        names = _names(paths, self._folder, keep=1)
        found = []
        for path in paths:
            entry: dict[str, Any] = {}
            for matched, said in entries:
                entry |= said if path in matched else {}
            own = path.parent.name if path.parent != self._folder else names[path]
            found.append(
                LabelledFile(
                    path,
                    names[path],
                    _several(entry.get("about", own)),
                    entry.get("learn", "all"),
                    entry.get("ranks_features", True),
                    entry.get("kind", ""),
                    path in benign,
                )
            )
        return found

    def _corpora(self, paths: Sequence[Path]) -> Iterator[BenignCorpus]:
        unlike, names = self._named("unlike"), _names(paths, self._folder, keep=0)
        return (BenignCorpus(path, names[path], path in unlike) for path in paths)

    def _named(self, key: str) -> set[Path]:
        return self._matching(self._said.get(key, ()))

    def _matching(self, patterns: Iterable[str]) -> set[Path]:
        return set(itertools.chain.from_iterable(self._match(pattern) for pattern in patterns))

    def _match(self, pattern: str) -> list[Path]:
        """Files that a pattern names; a folder stands for all files in it."""
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts or not pattern:
            raise InputError(f"{pattern!r} is no path below {self._folder}; write it relative to that folder")
        found = [path for path in self._folder.glob(pattern) if path.is_file()]
        inside = [path for path in self._folder.glob(f"{pattern}/**/*") if path.is_file()]
        known = [path for path in [*found, *inside] if kind_of(path) in ROWS]
        if not known:
            what = "only files that cannot be read" if found or inside else "no file"
            shown = ", ".join(str(path.relative_to(self._folder)) for path in self._files[:5])
            raise InputError(
                f"{pattern!r} matches {what} in {self._folder}; it holds {shown or 'no .jsonl, .csv or .txt file'}"
                + (" …" if len(self._files) > 5 else "")
            )
        return known


def _names(paths: Sequence[Path], folder: Path, *, keep: int) -> dict[Path, str]:
    """Paths without suffixes, below the deepest folder that holds them all and is `keep` folders above each."""
    above = [path.parents[min(keep, len(path.relative_to(folder).parts) - 1)] for path in paths]
    root = Path(os.path.commonpath(above)) if paths else folder
    names = {path: path.relative_to(root).as_posix()[: -len("".join(_suffixes(path)))] for path in paths}
    for name, same in itertools.groupby(sorted(paths, key=lambda p: names[p]), key=lambda p: names[p]):
        twice = [str(path.relative_to(folder)) for path in same]
        if len(twice) > 1:
            raise InputError(f"{' and '.join(twice)} would both be called {name}; rename one")
    return names


def _suffixes(path: Path) -> list[str]:
    packed = path.suffix if path.suffix != kind_of(path) else ""
    return [kind_of(path), packed]


def _several(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _drawn(text: str) -> bytes:
    """A place in an order that is as good as random and the same in every run."""
    return hashlib.sha256(text.encode()).digest()


_PATTERNS = "a pattern such as corpus/*.jsonl, or a list of them"
_FIELDS = {
    "labelled": _PATTERNS,
    "benign": _PATTERNS,
    "false_positives": _PATTERNS,
    "unlike": _PATTERNS,
    "leave_out": _PATTERNS,
    "train_fraction": "a number from 0 to 1",
    "seed": "a whole number",
    "sources": "a list of entries, each with `files` and what is so about them",
    "averages": "headings, each with a pattern or a list of patterns",
}
_ENTRY = {
    "files": _PATTERNS,
    "about": "the name or category of a policy, or a list of them",
    "learn": "all, positives or none",
    "ranks_features": "true or false",
    "kind": "a word, such as response",
}


def _manifest(folder: Path, given: Path | None) -> dict[str, Any]:
    """What the manifest says, by field; nothing where there is none. InputError with every wrong line."""
    path = given or folder / MANIFEST
    if given is None and not path.exists():
        return {}
    try:
        document = read_document(path)
    except PolicyProblems as error:
        raise InputError("\n".join(map(str, error.problems))) from None
    problems = [*document.problems, *_wrong(document, document.data, _FIELDS, ())]
    entries = document.data.get("sources") if isinstance(document.data, dict) else None
    for i, entry in enumerate(entries if isinstance(entries, list) else ()):
        problems += _wrong(document, entry, _ENTRY, ("sources", i))
        if isinstance(entry, dict) and "files" not in entry:
            problems.append(document.problem(("sources", i), "has no `files`", f"write {_ENTRY['files']}"))
    if problems:
        raise InputError("\n".join(map(str, problems)))
    data: dict[str, Any] = dict(document.data)
    lists = ("labelled", "benign", "false_positives", "unlike", "leave_out")
    data |= {name: _several(data[name]) for name in lists if name in data}
    data["averages"] = {name: _several(value) for name, value in data.get("averages", {}).items()}
    return data


def _wrong(
    document: YamlDocument, data: object, known: Mapping[str, str], at: tuple[object, ...]
) -> Iterator[Problem]:
    """Fields that do not exist, and values that are not what their field holds."""
    if not isinstance(data, dict):
        yield document.problem(at, "holds no fields", f"write some of {', '.join(known)}")
        return
    for name, value in data.items():
        if name not in known:
            hint = f"write one of {', '.join(known)}"
            yield document.problem((*at, name), f"there is no field `{name}`", hint, key=True)
        elif not _fits(str(name), value):
            yield document.problem((*at, name), f"`{name}` cannot be {value!r}", f"write {known[name]}")


def _fits(name: str, value: object) -> bool:
    match name:
        case "train_fraction":
            return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        case "seed":
            return isinstance(value, int) and not isinstance(value, bool)
        case "learn":
            return value in LEARN
        case "ranks_features":
            return isinstance(value, bool)
        case "kind":
            return isinstance(value, str)
        case "sources":
            return isinstance(value, list)
        case "averages":
            return isinstance(value, dict) and all(_words(patterns) for patterns in value.values())
        case _:
            return _words(value)


def _words(value: object) -> bool:
    """One word or a list of words."""
    several = value if isinstance(value, list) else [value]
    return bool(several) and all(isinstance(one, str) and one for one in several)
