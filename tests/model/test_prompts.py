"""Prompts: one BOS, truncation, and what is refused."""

import time
from dataclasses import replace
from datetime import datetime

import pytest

from monitor.errors import BadRequest, InputError, TooLong
from monitor.model.prompts import DocumentReader, Prompter
from tests.model.tiny import loaded_model, tokenizer
from tests.model.tokenizers import built


class TestPrompts:
    def prompter(self) -> Prompter:
        return Prompter(loaded_model())

    def test_one_bos_for_text_and_for_chat(self) -> None:
        text = self.prompter()("hello", truncate=False, room=0, reply=False)
        chat = self.prompter()([{"role": "user", "content": "hello"}], truncate=False, room=0, reply=True)
        assert (text.ids[0], text.ids.count(0)) == (0, 1)
        assert (chat.ids[0], chat.ids.count(0)) == (0, 1)
        assert tokenizer().decode(chat.ids[1:]) == "user: hello\nassistant:"

    @pytest.mark.parametrize(
        ("template", "wanted"),
        [
            (
                "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
                "<user>ask<tool>told<user>more",
            ),
            (
                "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('no') }}{% endif %}"
                "<{{ m.role }}>{{ m.content }}{% endfor %}",
                "<user>ask\n\ntold\n\nmore",
            ),
            (
                "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}{% endif %}{% endfor %}",
                "<user>ask\n\ntold\n\nmore",
            ),
        ],
    )
    def test_what_tools_return_is_a_turn_of_its_own_where_the_template_has_one(
        self, template: str, wanted: str
    ) -> None:
        loaded = loaded_model()
        loaded.tokenizer.chat_template = template
        turns = [("user", "ask"), ("tool", "told"), ("user", "more")]
        asked = [{"role": role, "content": text} for role, text in turns]
        prompt = Prompter(loaded)(asked, truncate=False, room=0, reply=False)
        assert tokenizer().decode(prompt.ids).removeprefix("<s>") == wanted
        assert prompt.left_out == 0

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

    def test_ids_beyond_the_embedding_are_an_error_of_the_request(self) -> None:
        loaded = loaded_model()
        loaded.tokenizer.add_special_tokens({"pad_token": "<image>"})
        loaded.tokenizer.chat_template = "<image>{{ messages[0].content }}"
        asked = [{"role": "user", "content": "hello"}]
        with pytest.raises(BadRequest, match=r"messages: has a token \(id 258\) beyond the 258"):
            Prompter(loaded)(asked, truncate=False, room=0, reply=False)
        assert max(Prompter(loaded)("a <image>", truncate=False, room=0, reply=False).ids) < 258

    def test_a_text_of_which_nothing_is_left_is_refused(self) -> None:
        loaded = replace(loaded_model(), tokenizer=built("letters"))
        for content in ("\u200b", [{"role": "user", "content": "\u200b"}]):
            loaded.tokenizer.chat_template = "{{ messages[0].content }}"
            with pytest.raises(BadRequest, match="nothing"):
                Prompter(loaded)(content, truncate=False, room=0, reply=False)


class TestDocuments:
    def test_texts_and_conversations_are_read_as_they_are_served(self) -> None:
        loaded = loaded_model()
        talk = ({"role": "user", "content": "hello"}, {"role": "assistant", "content": "<s>hi"})
        serve = Prompter(loaded)
        expected = [
            list(serve(content, truncate=False, room=0, reply=False).ids) for content in ("one", talk, "two")
        ]
        assert DocumentReader(loaded)(["one", talk, "two"]) == expected

    def test_conversations_need_a_chat_template(self) -> None:
        loaded = loaded_model()
        loaded.tokenizer.chat_template = None
        with pytest.raises(InputError, match="no chat template"):
            DocumentReader(loaded)([({"role": "user", "content": "hello"},)])


def test_texts_that_a_template_leaves_out_are_counted() -> None:
    loaded = loaded_model()
    loaded.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role != 'system' %}"
        "{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
    )
    reader = DocumentReader(loaded)
    talk = [{"role": role, "content": "hello"} for role in ("system", "user", "system", "assistant")]
    reader(["plain", talk[1:2]])
    assert reader.left_out == 0
    reader([talk, talk[:2], "plain"])
    assert reader.left_out == 3


def test_documents_are_read_alike_whenever_the_day_changes(monkeypatch) -> None:
    class Clock(datetime):
        """A clock that is set by hand."""

        shows = datetime(2026, 3, 1, 23, 59)

        @classmethod
        def now(cls, tz=None):
            return cls.shows

    monkeypatch.setattr("monitor.model.prompts.datetime", Clock)
    monkeypatch.setattr("monitor.model.chat_template.datetime", Clock)
    loaded = loaded_model()
    loaded.tokenizer.chat_template = (
        "{{ strftime_now('%d') }}\n{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    turns, reader, serve = [{"role": "user", "content": "hello"}], DocumentReader(loaded), Prompter(loaded)
    placed, then = reader.placed(turns), serve(turns, truncate=False, room=0, reply=False)
    before = Clock.shows
    Clock.shows = datetime(2026, 3, 2, 0, 1)
    assert placed.lead > 2
    assert reader.placed(turns) == placed, "its opening is found in what runs"
    assert DocumentReader(loaded).placed(turns) != placed
    now = serve(turns, truncate=False, room=0, reply=False)
    assert serve(turns, truncate=False, room=0, reply=False, at=before) == then != now
    assert serve.opening == "02\nuser: "


def test_what_a_template_writes_by_itself_is_known() -> None:
    loaded = loaded_model()
    assert Prompter(loaded).opening == "<s>user: "
    loaded.tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}system: be kind\n{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    assert Prompter(loaded).opening == "system: be kind\nuser: "
    loaded.tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert Prompter(loaded).opening == ""
    loaded.tokenizer.chat_template = None
    assert Prompter(loaded).opening is None


CHAT = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}Be kind.\n{% endif %}"
    "{{ m['role'] + ': ' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


class TestPlacedTexts:
    def reader(self, template: str | None = CHAT) -> DocumentReader:
        loaded = loaded_model()
        loaded.tokenizer.chat_template = template
        return DocumentReader(loaded)

    def test_a_text_is_judged_whole(self) -> None:
        found = self.reader().placed("hello")
        assert (found.begin, found.lead) == (0, 0)
        assert tokenizer().decode(found.ids[1:]) == "hello"

    def test_a_prompt_is_what_the_server_runs_and_knows_what_the_template_wrote(self) -> None:
        loaded = loaded_model()
        loaded.tokenizer.chat_template = CHAT
        turns = ({"role": "user", "content": "hello"},)
        found = DocumentReader(loaded).placed(turns)
        assert found.ids == Prompter(loaded)(turns, truncate=False, room=0, reply=True).ids
        assert found.begin == 0
        assert tokenizer().decode(found.ids[: found.lead]) == "Be kind.\nuser: "

    @pytest.mark.parametrize("role", ["system", "user", "assistant"])
    def test_a_conversation_of_which_the_template_drops_a_text_is_not_read(self, role: str) -> None:
        shown = f"{{% if m['role'] != '{role}' %}}{{{{ m['role'] + ': ' + m['content'] }}}}{{% endif %}}"
        reader = self.reader("{% for m in messages %}" + shown + "{% endfor %}")
        turns = [{"role": role, "content": "hello"} for role in ("system", "user", "assistant")]
        with pytest.raises(InputError, match="leaves out"):
            reader.placed(turns)
        assert reader.placed([turn for turn in turns if turn["role"] != role]).ids

    def test_an_answer_is_judged_from_its_first_token_to_the_end_of_its_turn(self) -> None:
        turns = ({"role": "user", "content": "hello"}, {"role": "assistant", "content": "no and no"})
        found = self.reader().placed(turns)
        asked = self.reader().placed(turns[:1])
        assert found.ids[: found.begin] == asked.ids
        assert tokenizer().decode(found.ids[found.begin :]) == "no and no"
        assert found.lead == 0

    def test_a_system_message_of_ones_own_is_no_lead(self) -> None:
        turns = ({"role": "system", "content": "Be rude."}, {"role": "user", "content": "hello"})
        found = self.reader().placed(turns)
        assert "user: " not in tokenizer().decode(found.ids[: found.lead])

    def test_a_conversation_needs_a_chat_template(self) -> None:
        with pytest.raises(InputError, match="no chat template"):
            self.reader(None).placed(({"role": "user", "content": "hello"},))
