"""The tests beside the policies of a folder, run without a pair and with one."""

from types import SimpleNamespace

import numpy as np
import pytest

from monitor.lab.policy_tests import LEFT_OUT, SETUP, _text_reader, run_tests
from monitor.lab.readings import PairReader
from monitor.policy.files.lock import LockModel, write_lock
from monitor.records import WatchPlan
from tests.policy.policy_files import (
    CONCEPT,
    EXAMPLES,
    NOTHING,
    PINNED,
    lock_for,
    write_concept,
    write_policy,
)

CASES = """\
apiVersion: monitor/v1
policy: greed
cases:
  - {name: strong, readings: {all: [0, 1]}, fires: [stated]}
  - {name: weak, readings: {all: [0, 0.1]}, fires: [stated]}
  - {name: text, texts: [hello], fires: []}
"""


@pytest.fixture
def folder(tmp_path):
    write_concept(tmp_path)
    (tmp_path / "greed.test.yaml").write_text(CASES)
    return tmp_path


def test_without_a_pair_cases_on_texts_are_left_out(folder):
    found = run_tests(folder, None)
    assert [(one.policy, one.case, one.passed, one.skipped) for one in found] == [
        ("greed", "strong", True, False),
        ("greed", "weak", False, False),
        ("greed", "text", False, True),
    ]
    assert found[2].detail == LEFT_OUT


def test_what_cannot_be_used_fails_and_says_what_to_write(folder):
    (folder / "greed.test.yaml").write_text(CASES.replace("fires: [stated]", "fires: [other]", 1))
    (found, *_) = run_tests(folder, None)
    assert not found.passed
    assert "other" in found.detail
    (folder / "greed.test.yaml").unlink()
    (found,) = run_tests(folder, None)
    assert (found.case, found.passed) == (SETUP, False)
    assert "no test" in found.detail


def test_a_policy_for_another_model_is_skipped_where_a_model_runs(tmp_path, opened):
    bound = PINNED.replace("features:\n", 'match: {models: ["*another*"]}\nfeatures:\n', 1)
    write_policy(tmp_path, bound)
    (tmp_path / "greed.test.yaml").write_text(CASES)
    found = run_tests(tmp_path, PairReader(opened))
    assert {one.skipped for one in found} == {True}
    assert found[0].detail == "bound to *another*; not tested on this model"
    assert [one.skipped for one in run_tests(tmp_path, None)] == [False, False, True]


def test_a_lock_of_another_model_fails_on_this_one(folder, opened):
    assert CONCEPT in (folder / "greed.yaml").read_text()
    (found,) = run_tests(folder, PairReader(opened))
    assert (found.case, found.passed) == (SETUP, False)
    assert "`greed` has no lock for the running model" in found.detail


def test_without_a_pair_cases_run_with_every_lock(folder):
    lock = lock_for(EXAMPLES).model_dump(by_alias=True)
    lock["model"]["digest"] = NOTHING
    lock["rules"]["stated"]["threshold"] = 0.05
    write_lock(folder / "greed.yaml", LockModel.model_validate(lock), "other")
    found = {one.case: one.passed for one in run_tests(folder, None) if not one.skipped}
    assert found == {
        "strong (mine)": True,
        "weak (mine)": False,
        "strong (other)": True,
        "weak (other)": True,
    }
    assert [one.case for one in run_tests(folder, None, "other")] == ["strong", "weak", "text"]


def test_texts_are_read_by_the_pair(tmp_path, opened):
    write_policy(tmp_path, PINNED)
    (tmp_path / "greed.test.yaml").write_text(CASES)
    found = {one.case: one for one in run_tests(tmp_path, PairReader(opened))}
    assert not found["text"].skipped
    assert found["text"].passed == ("fired" not in found["text"].detail or "0 of 1" in found["text"].detail)


class Reader:
    """Reads `<s>` before a text, one token a word, and each token's number of letters."""

    takes_turns = False

    def __init__(self):
        self.passes = []
        text = SimpleNamespace(inner=self._inner)
        self.pair = SimpleNamespace(loaded=SimpleNamespace(text=text))

    def _inner(self, text, *, continued):
        assert continued, "a response begins no text"
        return [len(word) for word in text.split()]

    def ids(self, text):
        return [0, *(len(word) for word in text.split())]

    def watched_parts(self, prompt, response, plan):
        self.passes.append([*prompt, *response])
        return tuple(np.asarray(ids, np.float32)[:, None] for ids in (prompt, response))


def test_a_response_is_read_behind_its_prompt_in_one_pass():
    reader = Reader()
    prompt, response = _text_reader(reader)("how are you", "quite well", WatchPlan((3,)))
    assert reader.passes == [[0, 3, 3, 3, 5, 4]]
    assert (prompt.ravel().tolist(), response.ravel().tolist()) == ([0, 3, 3, 3], [5, 4])


def test_a_text_alone_has_no_response():
    prompt, response = _text_reader(Reader())("hello", "", WatchPlan((3,)))
    assert (len(prompt), len(response)) == (2, 0)


class ChatReader:
    """Reads conversations: a row of zero, then of what is judged a row for each word, its number of letters."""

    takes_turns = True

    def __init__(self):
        self.read = []

    def judged_columns(self, text, plan):
        self.read.append(text)
        return np.asarray([0, *(len(word) for word in text[-1]["content"].split())], np.float32)[:, None]


def test_with_a_chat_template_texts_are_read_where_they_occur():
    reader = ChatReader()
    read, plan = _text_reader(reader), WatchPlan((3,))
    prompt, response = read("how are you", "quite well", plan)
    assert (prompt.ravel().tolist(), response.ravel().tolist()) == ([0, 3, 3, 3], [5, 4])
    asked = {"role": "user", "content": "how are you"}
    assert reader.read == [(asked,), (asked, {"role": "assistant", "content": "quite well"})]
    prompt, response = read("", "quite well", plan)
    assert (len(prompt), response.ravel().tolist()) == (0, [0, 5, 4])
    assert [turn["role"] for turn in reader.read[-1]] == ["user", "assistant"]
    prompt, response = read("hello", "", plan)
    assert (prompt.ravel().tolist(), len(response)) == ([0, 5], 0)
