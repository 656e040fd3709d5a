"""Folders of labelled texts as others have them: other names, other files, and what is wrong with them said by line."""

import gzip
import json
import lzma
from pathlib import Path

import pytest

from monitor.errors import InputError
from monitor.lab.data_folder import open_data
from monitor.lab.splits import split_of


def rows(count, label, words="text", **more):
    return [{"text": f"{words} {label} {i}", "label": label, **more} for i in range(count)]


def jsonl(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def foreign(tmp_path):
    """Nothing in it is called as the folders that this project was made with."""
    mixed = [*rows(30, 1), *rows(30, 0)]
    lines = "".join(f'"{row["text"]}, yes",{row["label"]}\n' for row in mixed)
    write(tmp_path / "fraud" / "mails.csv", "text,label\n" + lines)
    write(tmp_path / "fraud" / "chats.jsonl.xz", lzma.compress(jsonl(mixed).encode()))
    write(tmp_path / "insults.jsonl.gz", gzip.compress(jsonl(mixed).encode()))
    write(
        tmp_path / "calm" / "questions.csv", "text,label\n" + "".join(f"question {i},0\n" for i in range(40))
    )
    write(tmp_path / "novels" / "one.txt", "It was a dark night.\n" * 200)
    write(tmp_path / "readme.md", "# mine\n")
    return tmp_path


def test_files_say_what_they_are_where_nobody_else_does(foreign):
    data = open_data(foreign)
    assert [source.name for source in data.sources] == ["fraud/chats", "fraud/mails", "insults"]
    assert [source.about for source in data.sources] == [("fraud",), ("fraud",), ("insults",)]
    assert [source.name for source in data.benign] == ["calm/questions"]
    assert [len(source.rows) for source in data.sources] == [60, 60, 60]
    assert data.sources[1].rows[0].text == "text 1 0, yes"
    assert not data.corpora
    (note,) = data.notes
    assert note.startswith("novels/one.txt: not used: its rows have no label; name it with --false-positives")


def test_every_row_counts_until_a_share_is_asked_for(foreign):
    data = open_data(foreign)
    assert [len(data.held_out(source, 1000)) for source in data.sources] == [60, 60, 60]
    assert not data.extra_rows("fraud-alerts", "fraud").texts
    half = open_data(foreign, train_fraction=0.5)
    mails = half.sources[1]
    kept = half.held_out(mails, 1000)
    assert {split_of("mails", "", row.text) for row in kept} == {"heldout"}
    assert 10 < len(kept) < 50
    taught = half.extra_rows("fraud-alerts", "fraud")
    assert len(taught.texts) > 20
    assert not set(taught.texts) & {
        row.text for source in half.sources[:2] for row in half.held_out(source, 1000)
    }
    other = open_data(foreign, train_fraction=0.5, seed=3)
    assert [row.text for row in other.held_out(other.sources[1], 1000)] != [row.text for row in kept]


def test_held_out_rows_are_of_both_labels_and_no_more_than_asked(foreign):
    data = open_data(foreign)
    kept = data.held_out(data.sources[0], 20)
    assert [row.label for row in kept] == [True] * 10 + [False] * 10
    assert len({row.group for row in kept}) == 20, "rows without a group are not tied together"
    assert kept == open_data(foreign).held_out(data.sources[0], 20)


def test_arguments_say_what_files_are(foreign):
    data = open_data(
        foreign,
        labelled=["fraud"],
        benign=["calm/*.csv", "novels/*"],
        false_positives=["novels/**"],
        leave_out=["fraud/chats.jsonl.xz"],
        about={"fraud/*.csv": ["scams", "phishing"]},
    )
    assert [(source.name, source.about) for source in data.sources] == [
        ("fraud/mails", ("scams", "phishing"))
    ]
    assert [source.name for source in data.about("scams", "other")] == ["fraud/mails"]
    assert [source.name for source in data.about("other", "phishing")] == ["fraud/mails"]
    assert not data.about("fraud", "fraud")
    assert [source.name for source in data.benign] == ["calm/questions", "novels/one"]
    assert len(data.benign[1].rows) == 200, "what is named as benign needs no labels"
    assert [corpus.name for corpus in data.corpora] == ["one"]
    assert data.notes == ("left out as asked: fraud/chats.jsonl.xz",)


def test_requests_are_shared_among_their_files(foreign):
    data = open_data(foreign, benign=["calm", "novels"])
    found = data.requests(20)
    assert {name: len(texts) for name, texts in found.items()} == {"calm/questions": 10, "novels/one": 10}


MANIFEST = """\
train_fraction: 0.25
seed: 7
labelled: [fraud/*.csv, insults.jsonl.gz]
benign: calm
false_positives: novels
unlike: [novels/*.txt]
sources:
  - {files: fraud/*, about: scams}
  - {files: insults*, learn: positives, ranks_features: false, kind: response}
averages: {all of them: [fraud/*, insults*]}
"""


@pytest.mark.parametrize("where", ["in the folder", "elsewhere"])
def test_a_manifest_says_the_same(foreign, tmp_path_factory, where):
    inside = where == "in the folder"
    path = foreign / "manifest.yaml" if inside else tmp_path_factory.mktemp("m") / "x.yaml"
    write(path, MANIFEST)
    data = open_data(foreign, manifest=None if inside else path)
    assert (data.split.train_fraction, data.split.seed) == (0.25, 7)
    mails, insults = data.sources
    assert (mails.name, mails.about, mails.learn) == ("fraud/mails", ("scams",), "all")
    assert (insults.learn, insults.ranks_features, insults.rows[0].kind) == ("positives", False, "response")
    assert all(data.extra_rows("x", "insults").positive)
    assert [(corpus.name, corpus.unlike) for corpus in data.corpora] == [("one", True)]
    assert data.averages == {"all of them": ("fraud/mails", "insults")}
    asked = open_data(foreign, manifest=path, train_fraction=0.5, labelled=["fraud/mails.csv"])
    assert (asked.split.train_fraction, [s.name for s in asked.sources]) == (0.5, ["fraud/mails"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("labelled: [fraud]\nbening: calm\n", "m.yaml:2:1: there is no field `bening`"),
        ("seed: soon\n", "m.yaml:1:7: `seed` cannot be 'soon'"),
        ("train_fraction: 50\n", "m.yaml:1:17: `train_fraction` cannot be 50"),
        ("sources:\n  - {about: x}\n", "m.yaml:2:5: has no `files`"),
        ("sources:\n  - {files: fraud/*, learn: some}\n", "write all, positives or none"),
        ("sources: fraud\n", "`sources` cannot be 'fraud'"),
        ("benign: [1]\n", "write a pattern such as corpus/*.jsonl"),
        ("- a\n", "holds no fields"),
        ("a: [\n", "m.yaml:"),
        ("benign: nowhere/*\n", "'nowhere/*' matches no file"),
    ],
)
def test_a_wrong_manifest_is_told_by_its_line(foreign, text, said):
    path = write(foreign.parent / f"{foreign.name}-m" / "m.yaml", text)
    with pytest.raises(InputError) as caught:
        open_data(foreign, manifest=path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a/x.csv", "words,label\nhello,1\n", "x.csv:1: no column `text`"),
        ("a/x.csv", "text,label\nhello,1\nyou,maybe\n", "x.csv:3: `label` is 'maybe'; write 1 or 0"),
        ("a/x.csv", "text,label\nhello,1\nyou, too,1\n", "x.csv:3: more cells than the first line names"),
        ("a/x.csv", "text,label\nhello,1\nyou,\n", "x.csv:3: no label; write 1"),
        ("a/x.csv", 'text,label\nhello,1\n"you,1\n', "x.csv:"),
        ("a/x.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', "x.jsonl:2: no label"),
        (
            "a/x.jsonl",
            '{"text": "a", "label": 1}\n{"text": " ", "label": 0}\n',
            "x.jsonl:2: the text is blank",
        ),
        ("a/x.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": "yes"}\n', "`label` is 'yes'"),
        (
            "a/x.jsonl",
            '{"text": "a", "label": 1, "group": [1]}\n',
            "`group` is [1]; write a word or a number",
        ),
        ("a/x.jsonl", '{"text": "a", "label": 1}\n{"label": 1}\n', 'x.jsonl:2: no text; write {"text": "…"}'),
    ],
)
def test_a_wrong_row_is_told_by_its_line(tmp_path, name, text, said):
    write(tmp_path / name, text)
    with pytest.raises(InputError) as caught:
        [source.rows for source in open_data(tmp_path, labelled=[name]).sources]
    assert said in str(caught.value)


def test_what_cannot_be_used_is_said(tmp_path, foreign):
    with pytest.raises(InputError, match="no folder at"):
        open_data(tmp_path / "none")
    with pytest.raises(InputError, match="holds no labelled file; give rows of text and label"):
        open_data(foreign / "novels")
    with pytest.raises(InputError, match=r"'\*\.tsv' matches no file in .*; it holds calm/questions.csv, "):
        open_data(foreign, benign=["*.tsv"])
    with pytest.raises(InputError, match="only files that cannot be read"):
        open_data(foreign, benign=["readme.md"])
    for pattern in ("/etc/passwd", "../x.csv", ""):
        with pytest.raises(InputError, match="is no path below"):
            open_data(foreign, benign=[pattern])
    with pytest.raises(InputError, match="the training share is 2"):
        open_data(foreign, train_fraction=2)
    with pytest.raises(InputError, match="named as benign and has rows with label 1"):
        open_data(foreign, benign=["insults.jsonl.gz"]).requests(10)
    with pytest.raises(InputError, match=r"holds no benign texts.*--benign"):
        open_data(foreign, labelled=["fraud"]).requests(10)
    write(foreign / "fraud" / "mails.jsonl", jsonl(rows(3, 1)))
    with pytest.raises(InputError, match="would both be called fraud/mails; rename one"):
        open_data(foreign)


def test_groups_stay_on_one_side(tmp_path):
    pairs = [
        {"text": f"{w} {i}", "label": n, "group": i} for i in range(100) for n, w in enumerate(("a", "b"))
    ]
    write(tmp_path / "x" / "pairs.jsonl", jsonl(pairs))
    data = open_data(tmp_path, train_fraction=0.4)
    (source,) = data.sources
    measured = {row.group for row in data.held_out(source, 1000)}
    taught = set(data.extra_rows("x", "x").groups)
    assert len(measured) + len(taught) == 100
    assert not measured & taught


def test_files_of_the_bundled_pair_are_as_its_manifest_says(data_folder):
    data = open_data(
        data_folder, manifest=Path(__file__).parents[2] / "monitor" / "recipes" / "tiny" / "data.yaml"
    )
    names = {source.name for source in data.sources}
    assert {"scam/spamassassin", "bias/bbq_age", "truth/got_cities"} < names
    assert [source.name for source in data.benign] == ["benign/instructions"]
    vulnerable = {source.name for source in data.about("unsafe-code-vulnerability", "unsafe_code")}
    assert vulnerable == {"unsafe_code/sven", "unsafe_code/cyberseceval_instruct"}
    assert not data.about("unsafe-code-bug", "unsafe_code")
    corpora = {corpus.name: corpus.unlike for corpus in data.corpora}
    assert corpora["peps"]
    assert not corpora["gutenberg"]
    assert "hh_harmless" not in corpora
