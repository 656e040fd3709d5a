import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from monitor.errors import InputError
from monitor.lab.cost.texts import cost_texts, spread
from monitor.lab.data_folder import open_data
from monitor.lab.splits import split_of
from monitor.policy.files.examples import Example, Label


def labelled(folder: Path, rows=400):
    path = folder / "greed"
    path.mkdir(parents=True)
    lines = [
        {
            "text": f"{'I want it all' if i % 2 else 'Take it all'} {i}",
            "label": i % 2,
            "kind": "statement",
            "group": str(i // 2),
        }
        for i in range(rows)
    ]
    (path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def source(folder, examples=()):
    model = SimpleNamespace(metadata=SimpleNamespace(category="greed", name="greed"))
    return SimpleNamespace(path=folder / "greed.yaml", examples=examples, model=model)


def test_nothing_is_measured_on_what_was_learnt_from(tmp_path):
    data = open_data(labelled(tmp_path / "data"), train_fraction=0.5)
    found = cost_texts(source(tmp_path), data, ["calm"])
    taught, measured = ({row.group for row in rows} for rows in (found.taught, found.measured))
    assert taught
    assert measured
    assert not taught & measured
    for row in (*found.taught, *found.measured):
        assert split_of("pairs", row.group.split()[1], row.text) == "heldout"
    assert {split_of("pairs", row.group.split()[1], row.text) for row in found.learnt} == {"train"}
    assert found.held_out


def test_the_policys_own_examples_are_said_to_be_that(tmp_path):
    rows = [Example(f"yes {i}", Label.POSITIVE, str(i)) for i in range(80)]
    rows += [Example(f"no {i}", Label.NEGATIVE, str(i)) for i in range(80)]
    found = cost_texts(source(tmp_path, rows), None, ["calm"])
    assert not found.held_out
    assert "fitted with" in found.note


def test_too_few_are_refused(tmp_path):
    with pytest.raises(InputError, match="too few"):
        cost_texts(source(tmp_path), open_data(labelled(tmp_path / "data", 40)), ["calm"])
    (tmp_path / "data" / "greed").rename(tmp_path / "data" / "envy")
    with pytest.raises(InputError, match="is about greed or greed; they are about envy"):
        cost_texts(source(tmp_path), open_data(tmp_path / "data"), ["calm"])


def test_without_a_training_share_every_row_is_measured(tmp_path):
    found = cost_texts(source(tmp_path), open_data(labelled(tmp_path / "data")), ["calm"])
    assert len(found.taught) + len(found.measured) == 400
    assert not found.learnt


def test_sources_share_alike():
    rows = [SimpleNamespace(text=f"{s}{i}", source=s) for s, n in (("a", 50), ("b", 5)) for i in range(n)]
    found = spread(rows, 20)
    assert sum(row.source == "b" for row in found) == 5
    assert len(found) == len({row.text for row in found}) == 20
