"""Cases on texts: what the model reads of a prompt and of the response behind it."""

from types import SimpleNamespace

import numpy as np

from monitor.lab.policy_tests import _text_reader
from monitor.records import WatchPlan


class Reader:
    """Reads `<s>` before a text, one token a word, and each token's number of letters."""

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
