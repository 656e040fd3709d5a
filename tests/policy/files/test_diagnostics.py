"""Mistakes between fields are told in the same run as mistakes within them, and nothing is told twice."""

import pytest

from monitor.policy.files.lint import check_folder
from monitor.policy.files.source import read_source
from monitor.policy.files.yaml_document import PolicyProblems
from tests.policy.files.test_lint import FULL
from tests.policy.policy_files import PINNED


def told(tmp_path, text, name="greed"):
    """`line: message` of everything that is refused."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    with pytest.raises(PolicyProblems) as caught:
        read_source(path, None)
    return [f"{problem.line}: {problem.message}" for problem in caught.value.problems]


def edited(text, *pairs):
    for old, new in pairs:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return text


CONDITIONS = """\
apiVersion: monitor/v1
metadata:
  name: greed
  title: Greed
  category: greed
  severity: hig
  description: Wanting everything.
conditions:
  wants:
    features: [{index: 3}]
    threshold: 0.5
  idle:
    features: [{index: 3}, {index: 3}]
    threshold: 0.5
  first:
    when: second
  second:
    when: first
rules:
  - name: one
    when: {any: [wants, wnts, second]}
  - name: one
    for: 0
    when: {not: wants}
  - name: three
    action: suppress
    when: {at_least: 3, of: [wants, hates]}
"""


def test_everything_about_conditions_beside_a_wrong_severity(tmp_path):
    found = told(tmp_path, CONDITIONS)
    for line, words in (
        (6, "metadata.severity"),
        (13, "no rule uses the condition `idle`"),
        (13, "feature 3 stands here twice"),
        (16, "circle"),
        (21, "no condition `wnts`"),
        (22, "a second rule is called `one`"),
        (23, "`rules[1].for` must be greater"),
        (26, "needs a `suppress:` section"),
        (27, "3 of 2 parts can never hold"),
        (27, "no condition `hates`"),
    ):
        assert any(one.startswith(f"{line}: ") and words in one for one in found), (line, words, found)
    assert len(found) == 10, found


def test_clamps_of_a_policy_whose_rule_is_wrong(tmp_path):
    text = edited(
        PINNED,
        ("threshold: 0.8", "threshold: high"),
        ("action: suppress", "action: alert"),
        ("[9]", "[9, 9]"),
    )
    found = told(tmp_path, text)
    assert len(found) == 3, found
    assert any("valid number" in one for one in found)
    assert any("`detected` needs a rule" in one for one in found)
    assert any("feature 9 stands here twice" in one for one in found)


def test_suppress_without_features_beside_a_misspelt_field(tmp_path):
    text = edited(PINNED, ("  features: [9]\n", ""), ("threshold: 0.8", "treshold: 0.8"))
    found = told(tmp_path, text)
    assert [one.split(": ")[1].split(";")[0] for one in found] == [
        "unknown field `rules[0].treshold`",
        "pinned policies name the features to clamp",
    ]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("action: suppress", "action: supress")], "action"),
        ([("features:\n  - {index: 3, label: wants}", "features:\n  - {index: x, label: wants}")], "index"),
        ([("suppress:\n", "supress:\n")], "did you mean"),
        ([("rules:\n", "rule:\n")], "did you mean"),
        ([("name: stated", "name: Stated")], "cannot be"),
        ([("threshold: 0.8", "threshold: [{up_to: 0, threshold: 1}]")], "up_to"),
        ([("target: -1.5", "target: low")], "target"),
    ],
)
def test_a_wrong_field_is_not_told_again_under_another_name(pairs, words, tmp_path):
    text = edited(PINNED, *pairs)
    path = tmp_path / "greed.yaml"
    path.write_text(text)
    with pytest.raises(PolicyProblems) as caught:
        read_source(path, None)
    assert len(caught.value.problems) == 1, str(caught.value)
    assert words in str(caught.value)


def test_a_key_that_stands_twice_and_a_number_that_is_none_do_not_hide_the_rest(tmp_path):
    text = edited(
        PINNED,
        ("  title: Greed\n", "  title: Greed\n  title: Again\n"),
        ("index: 7", "index: 99999999999999999999999"),
        ("severity: high", "severity: hig"),
        ("[9]", "[9, 9]"),
    )
    found = told(tmp_path, text)
    assert len(found) == 4, found
    for words in ("stands here a second time", "is not a number", "severity", "stands here twice"):
        assert sum(words in one for one in found) == 1


def test_the_name_of_the_file_is_compared_although_a_field_is_wrong(tmp_path):
    found = told(tmp_path, edited(PINNED, ("severity: high", "severity: hig")), name="envy")
    assert any("the name differs from the file's, `envy`" in one for one in found)
    assert len(found) == 2


def test_every_mistake_of_a_row_of_examples(tmp_path):
    text = PINNED.replace(
        PINNED[PINNED.index("features:") : PINNED.index("rules:")], "concept: {examples: greed.jsonl}\n"
    )
    (tmp_path / "greed.yaml").write_text(text)
    (tmp_path / "greed.jsonl").write_text('{"text": "", "label": "postive", "kind": 3}\n')
    with pytest.raises(PolicyProblems) as caught:
        check_folder(tmp_path)
    for words in ("text: ", "label: ", "kind: "):
        assert words in str(caught.value)


@pytest.mark.slow
def test_one_unknown_word_anywhere_is_all_that_is_told(tmp_path):
    """A file that is right but for that has nothing more to tell, wherever it is read tolerantly."""
    lines, tried = FULL.splitlines(), 0
    for i, line in enumerate(lines):
        blank = line[: len(line) - len(line.lstrip(" -"))].replace("-", " ")
        found = told(tmp_path, "\n".join([*lines[:i], f"{blank}zzz: 1", *lines[i:]]) + "\n")
        if "not valid YAML" not in found[0]:
            tried += 1
            assert all("zzz" in one for one in found), (i, line, found)
    assert tried > 20
