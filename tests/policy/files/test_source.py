"""Whatever a policy file holds: a policy, or problems with positions; never another exception."""

import numpy as np
import pytest

from monitor.policy.files.loader import read_folder
from monitor.policy.files.source import read_source
from monitor.policy.files.yaml_document import MAX_BYTES, PolicyProblems
from tests.policy.policy_files import PINNED, write_policy


def swap(old, new):
    assert old in PINNED
    return PINNED.replace(old, new)


CASES = {
    "empty": ("", 1, "the file is empty"),
    "only a comment": ("# nothing\n", 1, "the file is empty"),
    "text": ("hello\n", 1, "holds a text"),
    "a list": ("- a\n- b\n", 1, "holds a list"),
    "tab": (swap("  name: greed", "\tname: greed"), 3, "a tab stands"),
    "tab inside": (swap("    threshold: 0.8", "\t\tthreshold: 0.8"), 13, "tab"),
    "anchor": (swap("name: greed", "name: &n greed"), 3, "anchors are refused"),
    "alias": (swap("name: greed", "name: *n"), 3, "aliases are refused"),
    "alias bomb": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", 1, "anchors are refused"),
    "merge key": (swap("  title: Greed", "  <<: {title: Greed}"), 4, "unknown field"),
    "tag": (swap("title: Greed", "title: !!python/object/apply:os.system [ls]"), 4, "tag"),
    "own tag": (swap("title: Greed", "title: !secret Greed"), 4, "tag"),
    "duplicate key": (swap("  title: Greed", "  title: Greed\n  title: Again"), 5, "second time"),
    "duplicate rule": (PINNED + "\nrules: []\n", 19, "second time"),
    "two documents": (PINNED + "---\n" + PINNED, 18, "second document"),
    "unclosed bracket": (swap("features: [9]", "features: [9"), 17, "not valid YAML"),
    "unclosed quote": (swap("title: Greed", 'title: "Greed'), 1, "not valid YAML"),
    "bad indent": (swap("    action: suppress", "   action: suppress"), 1, "not valid YAML"),
    "control character": (swap("Greed\n", "Gre\x00ed\n"), 4, "not allowed in YAML"),
    "escape character": (swap("Greed\n", "Gre\x1bed\n"), 4, "not allowed in YAML"),
    "wrong version": (swap("monitor/v1", "monitor/v9"), 1, "apiVersion"),
    "no version": (swap("apiVersion: monitor/v1\n", ""), 1, "`apiVersion` is missing"),
    "wrong name": (swap("name: greed", "name: Greed Is Bad"), 3, "cannot be 'Greed Is Bad'"),
    "other name": (swap("name: greed", "name: envy"), 3, "differs from the file's"),
    "severity": (swap("severity: high", "severity: hi"), 6, "'low', 'medium', 'high' or 'critical'"),
    "severity list": (swap("severity: high", "severity: [high]"), 6, "severity"),
    "number as text": (swap("threshold: 0.8", 'threshold: "0.8"'), 13, "valid number"),
    "nan": (swap("threshold: 0.8", "threshold: .nan"), 13, "finite"),
    "infinity": (swap("threshold: 0.8", "threshold: .inf"), 13, "finite"),
    "bool as number": (swap("threshold: 0.8", "threshold: true"), 13, "number"),
    "null": (swap("threshold: 0.8", "threshold:"), 13, "number"),
    "rate zero": (swap("0.8", "{false_positive_rate: 0}"), 13, "greater than 0"),
    "rate one": (swap("0.8", "{false_positive_rate: 1.0}"), 13, "less than or equal to 0.5"),
    "rate misspelt": (swap("0.8", "{false_positives: 0.1}"), 13, "missing"),
    "negative index": (swap("index: 3", "index: -3"), 9, "greater than or equal to 0"),
    "float index": (swap("index: 3", "index: 3.5"), 9, "integer"),
    "huge index": (swap("index: 3", "index: 99999999999999999999999"), 9, "not a number"),
    "same feature twice": (swap("index: 7", "index: 3"), 10, "stands here twice"),
    "clamped twice": (swap("[9]", "[9, 9]"), 16, "stands here twice"),
    "positive clamp": (swap("-1.5", "1.5"), 17, "less than or equal to 0"),
    "unknown pooling": (swap("threshold", "pooling: median\n    threshold"), 13, "pooling"),
    "unknown pooling kind": (
        swap("threshold", "pooling: {kind: median}\n    threshold"),
        13,
        "'median' is none of",
    ),
    "pooling without level": (swap("threshold", "pooling: {kind: longest_run}\n    threshold"), 13, "level"),
    "pooling number": (swap("threshold", "pooling: 3\n    threshold"), 13, "pooling"),
    "for zero": (swap("threshold", "for: 0\n    threshold"), 13, "greater than or equal to 1"),
    "phases empty": (swap("threshold", "phases: []\n    threshold"), 13, "must not be empty"),
    "phases twice": (swap("threshold", "phases: [prompt, prompt]\n    threshold"), 13, "twice"),
    "phase unknown": (swap("threshold", "phases: [promt]\n    threshold"), 13, "prompt"),
    "action unknown": (swap("action: suppress", "action: allow"), 14, "'alert', 'suppress' or 'block'"),
    "mode unknown": (swap("action: suppress", "action: suppress\n    mode: on"), 15, "mode"),
    "suppress without section": (PINNED.split("suppress:\n")[0], 14, "needs a `suppress:` section"),
    "suppress never used": (swap("action: suppress", "action: alert"), 16, "detected"),
    "no rules": (PINNED.split("rules:")[0], 1, "needs `rules:`"),
    "no features": (
        PINNED.replace("features:\n  - {index: 3, label: wants}\n  - {index: 7, weight: 0.5}\n", ""),
        1,
        "neither",
    ),
    "features empty": (
        swap("  - {index: 3, label: wants}\n  - {index: 7, weight: 0.5}\n", "  []\n"),
        9,
        "must not be empty",
    ),
    "both": (PINNED + "concept: {examples: a.jsonl}\n", 1, "both"),
    "no such examples": (
        PINNED.split("features:\n  - ")[0]
        + "concept: {examples: a.jsonl}\nrules: [{name: a, threshold: 1}]\n",
        1,
        "cannot be read",
    ),
    "examples elsewhere": (
        swap("features:\n  - ", "concept: {examples: ../../etc/x.jsonl}\nfeatures:\n  - "),
        8,
        "beside",
    ),
    "empty concept": (
        PINNED.split("features:\n  - ")[0] + "concept: {}\nrules: [{name: a, threshold: 1}]\n",
        8,
        "examples",
    ),
    "unknown top field": (PINNED + "supress: {}\n", 18, "did you mean `suppress`?"),
    "on_error": (PINNED + "on_error: maybe\n", 18, "'closed' or 'open'"),
    "key is a list": (PINNED + "[a, b]: c\n", 18, "plain word"),
    "deep nesting": ("a: " + "[" * 5000 + "]" * 5000, 1, "nested deeper"),
    "deep mapping": ("a: " + "{a: " * 3000 + "1" + "}" * 3000, 1, "nested deeper"),
    "many digits": (swap("0.8", "1" * 400), 13, "not a number"),
    "bad octal": (swap("0.8", "0o9"), 13, "number"),
    "a date": (swap("0.8", "2020-02-30"), 13, "number"),
    "a very long title": (swap("title: Greed", "title: " + "x" * 5000), 4, "at most 120"),
    "dictionary digest": (PINNED + "dictionary: sha256:12\n", 18, "64 hexadecimal digits"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_is_refused_at_its_line(name, tmp_path):
    text, line, word = CASES[name]
    path = tmp_path / "greed.yaml"
    path.write_text(text)
    with pytest.raises(PolicyProblems) as caught:
        read_source(path, None)
    shown = str(caught.value)
    assert word in shown
    lines = [p.line for p in caught.value.problems]
    assert line == 1 or line in lines, shown
    assert all(p.column >= 1 for p in caught.value.problems)


def test_bytes_that_are_not_utf8_are_named_with_their_place(tmp_path):
    path = tmp_path / "greed.yaml"
    path.write_bytes(PINNED.replace("Greed\n", "Gr").encode() + b"\xffeed\n")
    with pytest.raises(PolicyProblems) as caught:
        read_source(path, None)
    assert "byte 0xff is not UTF-8" in caught.value.problems[0].message
    path.write_bytes(PINNED.encode("utf-16"))
    with pytest.raises(PolicyProblems, match="not UTF-8"):
        read_source(path, None)


def test_a_huge_file_is_not_parsed(tmp_path):
    path = tmp_path / "greed.yaml"
    path.write_text("# " + "x" * (MAX_BYTES + 10))
    with pytest.raises(PolicyProblems, match="is larger than"):
        read_source(path, None)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    (tmp_path / "greed.yaml").mkdir()
    with pytest.raises(PolicyProblems, match="cannot be read"):
        read_source(tmp_path / "greed.yaml", None)


NOISE = [
    b"\t",
    b"&a ",
    b"*a",
    b"!!int ",
    b"{",
    b"]",
    b"'",
    b'"',
    b": ",
    b"- ",
    b"\n",
    b"\xff",
    b"\x00",
    b"? ",
    b"%",
    b"|",
    b"@",
    b"~",
]


def spoilt(rng):
    """A valid file after a few random edits of bytes and lines."""
    raw = bytearray(PINNED.encode())
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(raw)))
        kind = rng.integers(0, 4)
        if kind == 0:
            raw[at:at] = NOISE[rng.integers(0, len(NOISE))]
        elif kind == 1:
            del raw[at : at + int(rng.integers(1, 9))]
        elif kind == 2:
            raw[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 5))).astype(np.uint8))
        else:
            lines = bytes(raw).split(b"\n")
            picked = lines[rng.integers(0, len(lines))]
            lines.insert(int(rng.integers(0, len(lines))), picked[int(rng.integers(0, 3)) :])
            raw = bytearray(b"\n".join(lines))
    return bytes(raw)


@pytest.mark.parametrize("seed", range(300))
def test_random_edits_give_a_policy_or_problems(seed, tmp_path):
    path = tmp_path / "greed.yaml"
    path.write_bytes(spoilt(np.random.default_rng(seed)))
    try:
        read_source(path, None)
        found = ()
    except PolicyProblems as error:
        found = error.problems
    assert all(p.line >= 1 and p.column >= 1 and p.message and str(p) for p in found)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("%YAML 1.3\n---\n" + PINNED, (1, 1), "is not valid YAML: version minor"),
        (PINNED.replace("label: wants", 'label: "\\UFFFFFFFF"'), (1, 1), "is not valid YAML"),
        (PINNED.replace("label: wants", "label: \a"), (9, 23), "character U+0007 is not allowed"),
        (PINNED.replace("label: wants", "label: \ufffe"), (9, 23), "character U+FFFE is not allowed"),
        (PINNED.replace("weight: 0.5", "weight: 1e+300"), (10, 24), "must be less than or equal to"),
        (PINNED.replace("name: greed", 'name: "greed\\n"'), (3, 9), "`metadata.name` cannot be"),
    ],
)
def test_what_the_parser_itself_stumbles_over_is_one_problem(tmp_path, text, place, message):
    with pytest.raises(PolicyProblems) as caught:
        read_folder(write_policy(tmp_path, text).parent, None)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == place
    assert message in problem.message
