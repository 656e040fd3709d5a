"""What the files of a data folder are, by flags."""

import json

import pytest
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.cli.policy.data_flags import data_folder
from monitor.errors import InputError
from tests.cli.policy.tools import output_of, write_rows


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    """Somebody else's folder: other names, csv, no groups, documents beside it."""
    folder = tmp_path_factory.mktemp("foreign")
    bad = [
        f"Congratulations, number {i}! Claim your prize of {i} dollars by sending a small fee,1"
        for i in range(40)
    ]
    good = [f"Shall we meet on day {i} for lunch in the park?,0" for i in range(40)]
    mails = [f'"{line[:-2]}",{line[-1]}' for line in bad + good]
    (folder / "mails.csv").write_text("\n".join(["text,label", *mails]))
    (folder / "asked.csv").write_text(
        "text,label\n" + "".join(f"How far is town {i}?,0\n" for i in range(60))
    )
    (folder / "odd").mkdir()
    (folder / "odd" / "few.csv").write_text("text,label\nhello,1\nyou,0\n")
    (folder / "news").mkdir()
    write_rows(
        folder / "news" / "old.jsonl",
        [{"text": f"On day {i} it rained in the town. " * 5} for i in range(90)],
    )
    return folder


@pytest.mark.slow
def test_evaluate_takes_anybodys_folder(fitted, foreign):
    arguments = ["--about", "mails.csv=scams", "--about", "odd/*=scams", "--false-positives", "news"]
    record = json.loads(output_of("evaluate", fitted, "--data", foreign, *arguments, "--rows", 80, "--json"))
    (source,) = record["sources"]
    assert (source["source"], source["positive"], source["negative"]) == ("mails", 40, 40), "all rows count"
    assert source["methods"]["policy"]["auroc"] > 0.9
    texts = {}
    for rate in record["rates"]:
        if rate["rule"] == "written":
            texts[rate["source"], rate["kind"]] = texts.get((rate["source"], rate["kind"]), 0) + rate["texts"]
    assert texts[("asked", "requests")] == 60
    assert 20 < texts[("old", "corpus")] < 70
    notes = "\n".join(record["notes"])
    assert "odd/few: not measured, as only 2 rows, 1 of them positive" in notes
    assert "old: read is the half of the documents that `policy fit --benign` leaves out" in notes
    text = output_of("evaluate", fitted, "--data", foreign, *arguments, "--train-fraction", 0, "--rows", 50)
    assert "| scams | mails |" in text
    assert "| old |" in text
    assert "read is the half" not in text, "a share of 0 reads every document"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [],
            "are about mails, odd, and no policy here is: say what they are about with --about 'PATTERN=NAME'",
        ),
        (["--about", "scams"], "--about scams: write PATTERN=NAME"),
        (["--about", "male.csv=scams"], "'male.csv' matches no file"),
        (["--leave-out", "asked.csv"], "holds no benign texts"),
        (["--benign", "nothing/*"], "'nothing/*' matches no file"),
        (["--manifest", "nowhere.yaml"], "nowhere.yaml"),
        (["--train-fraction", "3"], "--train-fraction"),
    ],
)
def test_what_a_folder_lacks_is_said(fitted, foreign, arguments, said):
    done = CliRunner().invoke(app, ["policy", "evaluate", str(fitted), "--data", str(foreign), *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize("entry", ["scams", "=scams", "mail/*.csv=", "="])
def test_subjects_are_given_as_pattern_and_name(tmp_path, entry):
    with pytest.raises(InputError, match=r"write PATTERN=NAME, such as 'mail/\*\.csv=scams'"):
        data_folder(tmp_path, about=[entry])


def test_flags_say_what_files_are_and_a_pattern_may_hold_equals_signs(tmp_path):
    for name in ("mails=1.csv", "asked.csv", "rest.csv"):
        label = "" if name == "asked.csv" else "yes,1\n"
        (tmp_path / name).write_text(f"text,label\nno,0\n{label}")
    found = data_folder(
        tmp_path,
        about=["mails=1.csv=scams", "mails=1.csv=fraud"],
        benign=["asked.csv"],
        leave_out=["rest.csv"],
    )
    (source,) = found.sources
    assert sorted(source.about) == ["fraud", "scams"]
    assert [file.name for file in found.benign] == ["asked"]
    assert not found.split_asked
    half = data_folder(
        tmp_path, about=["mails=1.csv=scams"], leave_out=["rest.csv"], train_fraction=0.25, split_seed=7
    )
    assert (half.split_asked, half.split.train_fraction, half.split.seed) == (True, 0.25, 7)
