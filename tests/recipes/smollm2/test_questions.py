"""Which questions are asked: nothing that is held out, and the same ones every time."""

from monitor.recipes.corpus import CorpusText
from monitor.recipes.smollm2.questions import LONGEST, SHARES, WRITTEN_HERE, questions


def _corpus(count: int) -> list[CorpusText]:
    talk = "Human: Question {}?\n\nAssistant: Answer.\n\nHuman: And then?\n\nAssistant: Nothing."
    return [CorpusText(talk.format(n), "heldout" if n % 10 == 0 else "train") for n in range(count)]


def test_only_training_texts_are_asked_about() -> None:
    asked = [q for q in questions({"hh_harmless": _corpus(300)}) if q.source == "hh_harmless"]
    assert len(asked) == 270
    first = {q.turns[0]["content"] for q in asked}
    assert not any(f"Question {n}?" in first for n in range(0, 300, 10))
    assert {len(q.turns) for q in asked} == {1, 3}
    assert all(q.turns[-1]["role"] == "user" for q in asked)


def test_each_source_gives_its_share_at_most_and_the_order_is_fixed() -> None:
    corpora = {"schema_dialogue": _corpus(2000)}
    one, two = questions(corpora), questions(corpora)
    assert one == two
    assert sum(q.source == "schema_dialogue" for q in one) == SHARES["schema_dialogue"]
    assert len({q.digest for q in one}) == len(one)


def test_statements_and_requests_are_put_as_questions() -> None:
    statements = [CorpusText(f"I like number {n}.", "train") for n in range(40)]
    found = questions({"labelled/statements": statements, "labelled/dangerous_request": statements})
    forms = {
        q.turns[0]["content"].replace(str(n), "") for n, q in enumerate(found) if q.source != WRITTEN_HERE
    }
    assert len(forms) > 2
    assert any(q.turns[0]["content"].startswith("Do you agree?") for q in found)


def test_questions_written_here_ask_for_every_kind() -> None:
    found = questions({})
    assert {q.source for q in found} == {WRITTEN_HERE}
    assert {q.kind for q in found} == {"prose", "code", "dialogue", "instructions"}
    assert not any("{}" in q.turns[0]["content"] for q in found)


def test_what_is_too_long_or_no_dialogue_is_not_asked() -> None:
    texts = [CorpusText("Human: " + "x" * (LONGEST + 1), "train"), CorpusText("A story.", "train")]
    assert not [q for q in questions({"hh_harmless": texts}) if q.source == "hh_harmless"]
