import json
from dataclasses import replace

import pytest

from monitor.errors import DictionaryError
from monitor.model.selftest.verified_records import FILE, best_record, load_records, save_record
from tests.model.selftest.numbers import FOUND, RECORD

FIELDS = {
    "model": "sha256:other",
    "place": "blocks.2.hook_resid_post",
    "dtype": "bfloat16",
    "texts": "sha256:other",
}


def test_without_a_file_there_are_no_records(tmp_path):
    assert load_records(tmp_path) == load_records(tmp_path / "missing") == ()


def test_a_folder_that_does_not_exist_is_made(tmp_path):
    path = save_record(tmp_path / "of" / "a dictionary", RECORD)
    assert path == tmp_path / "of" / "a dictionary" / FILE
    assert load_records(path.parent) == (RECORD,)


@pytest.mark.parametrize("field", FIELDS)
def test_records_of_other_circumstances_stand_side_by_side(tmp_path, field):
    other = replace(RECORD, **{field: FIELDS[field]})
    save_record(tmp_path, RECORD)
    save_record(tmp_path, other)
    assert load_records(tmp_path) == (RECORD, other)


def test_the_same_circumstances_have_one_record(tmp_path):
    save_record(tmp_path, RECORD)
    newer = replace(RECORD, measured=replace(FOUND, l0=31.0))
    save_record(tmp_path, newer)
    assert load_records(tmp_path) == (newer,)


@pytest.mark.parametrize("field", ["dictionary", "model", "texts"])
def test_records_of_other_things_are_not_compared_with(field):
    assert best_record([replace(RECORD, **{field: "sha256:other"})], RECORD) is None
    assert best_record([], RECORD) is None


def test_the_same_dtype_goes_before_the_same_place_and_both_before_either():
    other_dtype = replace(RECORD, dtype="bfloat16")
    other_place = replace(RECORD, place=FIELDS["place"])
    neither = replace(other_place, dtype="bfloat16")
    assert best_record([neither, other_dtype], RECORD) == other_dtype
    assert best_record([other_place, other_dtype], RECORD) == other_place
    assert best_record([RECORD, other_place, other_dtype, neither], RECORD) == RECORD
    assert best_record([neither], RECORD) == neither


@pytest.mark.parametrize(
    "change",
    [
        {"place": None},
        {"measured": {"l0": 1.0}},
        {"measured": "text"},
        {"unheard": 1},
    ],
)
def test_records_with_wrong_fields_are_refused(tmp_path, change):
    path = save_record(tmp_path, RECORD)
    content = json.loads(path.read_text())
    entry = {**content["records"][0], **change}
    if change.get("place", "") is None:
        del entry["place"]
    path.write_text(json.dumps({**content, "records": [entry]}))
    with pytest.raises(DictionaryError, match="is not a file of"):
        load_records(tmp_path)


def test_a_file_of_another_version_says_what_to_do(tmp_path):
    path = save_record(tmp_path, RECORD)
    path.write_text(path.read_text().replace("verified.v1", "verified.v9"))
    with pytest.raises(DictionaryError, match=r"verified\.v9.*delete it and run"):
        load_records(tmp_path)
    with pytest.raises(DictionaryError):
        save_record(tmp_path, RECORD)


def test_numbers_that_this_version_does_not_know_are_passed_over(tmp_path):
    path = save_record(tmp_path, RECORD)
    content = json.loads(path.read_text())
    content["records"][0]["measured"]["later"] = 1.5
    path.write_text(json.dumps(content))
    assert load_records(tmp_path) == (RECORD,)
