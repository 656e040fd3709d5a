"""Mistakes planted in the bundled pair: each is caught, and nearly always the right cause is named first."""

from dataclasses import replace
from pathlib import Path

import pytest

from monitor.model.runtime import LoadedPair, load_pair
from monitor.model.selftest import texts
from monitor.model.selftest.expected import ExpectedSource
from monitor.model.selftest.result import SelfTest
from monitor.model.selftest.self_test import self_test
from monitor.model.selftest.verified_records import Record, save_record
from monitor.pairs import tiny
from tests.model.planted import PLANTED, Change, Planted


@pytest.fixture(scope="module")
def parts() -> LoadedPair:
    return load_pair(str(tiny.model_path()), tiny.dictionary_path(), device="cpu")


@pytest.fixture(scope="module", autouse=True)
def fewer_texts() -> object:
    """Every fifth text, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        all_texts, digest = texts.load_texts()
        patch.setattr(texts, "load_texts", lambda: (all_texts[::5], digest))
        yield


def beside(folder: Path, parts: LoadedPair, card: object = None) -> LoadedPair:
    """The pair with its records in `folder`."""
    dictionary = replace(parts.dictionary, path=folder)
    return replace(parts, dictionary=dictionary if card is None else replace(dictionary, card=card))


def outcome(planted: Planted, parts: LoadedPair, folder: Path, *, recorded: bool) -> SelfTest:
    right = beside(folder, planted.right(parts))
    record = _record(planted.right, right)
    found = record.measured
    card = replace(parts.dictionary.card, l0=found.l0, explained_variance=found.explained_variance)
    if recorded:
        save_record(folder, record)
    return self_test(beside(folder, planted.wrong(right), None if recorded else card))


_records: dict[object, Record] = {}


def _record(change: Change, right: LoadedPair) -> Record:
    """Of the pair as it should be; measured once for each way to make it."""
    if change not in _records:
        test = self_test(right, records=())
        assert self_test(right, records=[test.record]).passed
        _records[change] = test.record
    return _records[change]


@pytest.fixture(scope="module")
def recorded(parts: LoadedPair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SelfTest]:
    folder = tmp_path_factory.mktemp
    return {p.name: outcome(p, parts, folder("pair"), recorded=True) for p in PLANTED}


@pytest.mark.slow
@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_every_mistake_is_caught(recorded: dict[str, SelfTest], planted: Planted) -> None:
    test = recorded[planted.name]
    assert test.expected.source is ExpectedSource.RECORDED
    assert not test.passed
    assert planted.cause in [suspect.cause for suspect in test.suspects[:3]]


@pytest.mark.slow
def test_the_right_cause_comes_first_in_eight_of_ten(recorded: dict[str, SelfTest]) -> None:
    first = [recorded[planted.name].suspects[0].cause is planted.cause for planted in PLANTED]
    assert sum(first) >= 0.8 * len(first)


@pytest.mark.slow
def test_declared_values_alone_catch_all_but_three_and_name_the_right_cause(
    parts: LoadedPair, tmp_path_factory: pytest.TempPathFactory
) -> None:
    declared = {p.name: outcome(p, parts, tmp_path_factory.mktemp("pair"), recorded=False) for p in PLANTED}
    assert {test.expected.source for test in declared.values()} == {ExpectedSource.DECLARED}
    caught = [planted for planted in PLANTED if not declared[planted.name].passed]
    missed = {planted.name for planted in PLANTED if planted not in caught}
    assert missed <= {"encoder bias dropped", "dictionary on four bits", "model on four bits"}
    first = [planted for planted in caught if declared[planted.name].suspects[0].cause is planted.cause]
    assert len(first) >= 0.8 * len(PLANTED), (
        "the right cause is named first in eight of ten, without a record"
    )


@pytest.mark.slow
def test_the_bundled_pair_passes_by_itself() -> None:
    """Whatever is recorded or declared for it."""
    fresh = load_pair(str(tiny.model_path()), tiny.dictionary_path(), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "load_texts", _all_texts)
        test = self_test(fresh)
    assert test.passed, test.explained()
    assert test.measured.outliers < 0.01


_all_texts = texts.load_texts
