"""Prompts: one BOS, truncation, and what is refused."""

import time

import pytest

from monitor.errors import BadRequest, TooLong
from monitor.model.prompts import Prompter
from tests.model.tiny import loaded_model, tokenizer


class TestPrompts:
    def prompter(self) -> Prompter:
        return Prompter(loaded_model())

    def test_one_bos_for_text_and_for_chat(self) -> None:
        text = self.prompter()("hello", truncate=False, room=0, reply=False)
        chat = self.prompter()([{"role": "user", "content": "hello"}], truncate=False, room=0, reply=True)
        assert (text.ids[0], text.ids.count(0)) == (0, 1)
        assert (chat.ids[0], chat.ids.count(0)) == (0, 1)
        assert tokenizer().decode(chat.ids[1:]) == "user: hello\nassistant:"

    @pytest.mark.parametrize("content", ["", " \n\t", [], [{"role": "user", "content": ""}]])
    def test_empty_input_is_refused(self, content: object) -> None:
        with pytest.raises(BadRequest):
            self.prompter()(content, truncate=False, room=0, reply=True)

    def test_too_long_is_refused_unless_truncation_is_asked_for(self) -> None:
        with pytest.raises(TooLong, match="201 tokens"):
            self.prompter()("x" * 200, truncate=False, room=8, reply=False)
        prompt = self.prompter()("a" * 100 + "b" * 100, truncate=True, room=8, reply=False)
        assert (len(prompt.ids), prompt.truncated, prompt.ids[0]) == (120, 81, 0)
        assert tokenizer().decode(prompt.ids[-100:]) == "b" * 100

    def test_a_text_of_nothing_but_control_tokens_is_text_and_read_in_one_step(self) -> None:
        begun = time.process_time()
        prompt = self.prompter()("<s>" * 300_000 + "hi", truncate=True, room=0, reply=False)
        assert (prompt.ids[0], prompt.ids.count(0), prompt.truncated) == (0, 1, 900_003 - 128)
        assert tokenizer().decode(prompt.ids[1:]).endswith("<s><s>hi")
        assert time.process_time() - begun < 20

    def test_a_response_that_fills_the_context_is_refused(self) -> None:
        with pytest.raises(BadRequest, match="no room"):
            self.prompter()("hello", truncate=True, room=127, reply=False)
