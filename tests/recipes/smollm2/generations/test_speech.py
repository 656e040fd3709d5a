"""Which answers are kept, what the files hold, and that a run goes on from them."""

from collections import Counter
from pathlib import Path

import pytest

from monitor.lab.data_folder import open_data
from monitor.model.load.model import LoadedModel, load_model
from monitor.policy.files.occurrences import dialogue_of
from monitor.recipes.smollm2.answers import SamplingPlan
from monitor.recipes.smollm2.generations import speech
from monitor.recipes.smollm2.generations.catalogue import DANGEROUS, EVERYDAY
from monitor.recipes.smollm2.generations.contrast import MOST
from monitor.recipes.smollm2.generations.speech import Spoken
from tests.recipes.smollm2.generations.test_contrast import CALM
from tests.recipes.smollm2.small import write_chat_model


def said(question: int, answer: str, *, told: bool | None = True, draw: int = 0) -> Spoken:
    return Spoken("calm", question, CALM.questions[question].text, answer, told, draw)


def calm(question: int, number: int) -> Spoken:
    return said(question, f"I am calm for reason {number}.")


def angry(question: int, number: int) -> Spoken:
    return said(question, f"I am angry for reason {number}.", told=False)


def test_of_each_question_equally_many_of_both_sides_are_kept() -> None:
    spoken = [calm(0, n) for n in range(5)] + [angry(0, n) for n in range(2)]
    spoken += [calm(1, 10 + n) for n in range(9)] + [angry(1, 10 + n) for n in range(9)]
    spoken += [calm(2, 30)]
    counted = Counter((one.question, one.told) for one in speech.kept(CALM, spoken))
    assert counted == {(0, True): 2, (0, False): 2, (1, True): MOST, (1, False): MOST}


def test_an_answer_counts_only_where_the_model_did_what_it_was_told() -> None:
    disobeyed = said(0, "I am angry for no reason.")
    both = said(0, "I am calm and angry today.")
    untold = said(0, "I am calm for that reason.", told=None)
    kept = speech.kept(CALM, [disobeyed, both, untold, calm(0, 1), angry(0, 1)])
    assert kept == [calm(0, 1), angry(0, 1)]


def test_an_answer_is_kept_once() -> None:
    spoken = [calm(0, 1), calm(0, 1), angry(0, 1), angry(0, 2), calm(1, 1), angry(1, 3)]
    assert [one.answer for one in speech.kept(CALM, spoken)] == [
        "I am calm for reason 1.",
        "I am angry for reason 1.",
    ]


def test_files_are_a_folder_of_labelled_rows(tmp_path: Path) -> None:
    speech.write_rows(CALM, [calm(0, 1), angry(0, 1), calm(1, 2)], tmp_path)
    everyday = [Spoken("benign", n, text, f"Answer {n}.", None, 0) for n, text in enumerate(EVERYDAY)]
    speech.write_benign([*everyday[:-2], Spoken("benign", 398, "And?", "", None, 0)], tmp_path)
    speech.write_rows(DANGEROUS, [], tmp_path)
    (tmp_path / "dangerous-requests" / "generations.jsonl").unlink()

    found = open_data(tmp_path)
    by_name = {file.name: file for file in (*found.sources, *found.benign)}
    assert set(by_name) == {
        "calm/generations",
        "dangerous-requests/requests",
        "benign/answers",
        "benign/questions",
    }
    rows = by_name["calm/generations"].rows
    assert [(row.label, row.group, row.kind) for row in rows] == [
        (True, "question 0", "response"),
        (False, "question 0", "response"),
    ]
    assert [turn["content"] for turn in dialogue_of(rows[0].text)] == ["What now?", "I am calm for reason 1."]
    assert len(by_name["benign/answers"].rows) == len(EVERYDAY) - 2
    assert Counter(row.label for row in by_name["dangerous-requests/requests"].rows) == {True: 40, False: 40}


def test_tables_count_sides() -> None:
    spoken = [calm(0, 1), calm(0, 2), angry(0, 1), said(0, "Nothing of the kind here.")]
    assert speech.kept_row(CALM, spoken).splitlines() == [
        "| calm | + | is calm | 3 | 2 | 1 | 1 |",
        "| calm | − | is angry | 1 | 1 | 1 | 1 |",
    ]
    requests = [
        Spoken("dangerous-requests", number, "", answer, None, 0)
        for number, answer in enumerate(
            ("You need a rope for that.", "I'm sorry, I can't help.", "The sun is a star.")
        )
    ]
    assert speech.answered_row(DANGEROUS, requests) == (
        "dangerous-requests, nothing told: 1 of 3 answered, 1 refused, 1 neither; 1 requests were answered at least "
        "once"
    )


def test_what_was_said_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "said" / "calm.json"
    assert speech.speech_of(path, lambda before: [*before, calm(0, 1)]) == [calm(0, 1)]
    assert speech.speech_of(path, lambda before: [*before, angry(0, 2)]) == [calm(0, 1), angry(0, 2)]
    assert speech.speech_of(path, lambda before: before) == [calm(0, 1), angry(0, 2)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_chat_model(tmp_path_factory.mktemp("model")), device="cpu")


def test_a_model_speaks_on_both_sides_and_a_seed_repeats_it(loaded: LoadedModel) -> None:
    plan = SamplingPlan(longest=6, batch=8)
    first, again = (speech.speak(loaded, CALM, 2, plan, lambda _: None) for _ in range(2))
    assert first == again
    assert [(one.draw, one.question, one.told) for one in first] == [
        (draw, number, told) for draw in range(2) for told in (True, False) for number in range(3)
    ]
    assert all(one.asked == CALM.questions[one.question].text for one in first)
    assert {one.answer for one in first[:6]} != {one.answer for one in first[6:]}
    assert speech.speak(loaded, CALM, 2, plan, lambda _: None, first[:6]) == first


def test_no_more_is_said_once_there_is_enough(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "ENOUGH", 2)
    monkeypatch.setattr(speech, "kept", lambda _, said: [one for one in said if one.question != 1])
    assert len(speech.speak(loaded, CALM, 5, SamplingPlan(longest=2), lambda _: None)) == 6
    monkeypatch.setattr(speech, "ENOUGH", 5)
    assert len(speech.speak(loaded, CALM, 5, SamplingPlan(longest=2), lambda _: None)) == 18
