"""Text is only ever text, in every kind of tokenizer, and begins as the tokenizer begins it."""

from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import InputError, ModelError
from monitor.model.load.model import load_model
from monitor.model.load.tokenizer import TextTokenizer
from tests.model.tokenizers import KINDS, MARKERS, SPECIAL, built, byte_level, ctrl, no_bos

LOSSLESS = ("byte-level", "byte-level without BOS", "pieces, no space", "pieces, first", "Python, bytes")
WIDE = str.maketrans("<|>[]/", "＜｜＞［］／")
SPELLINGS = [*SPECIAL, *MARKERS, *(text.translate(WIDE) for text in SPECIAL)]
SPELLINGS += [
    "<unk>",
    "[UNK]",
    "<0x0A>",
    "<pad>",
    "<|endoftext|>",
    "▁",
    "Ġ",
    "\n\n",
    "covid",
    "hello@@",
    "</w>",
]
FRAGMENTS = st.one_of(
    st.sampled_from(SPELLINGS), st.text(max_size=6), st.sampled_from(["hello", " ", "user", "\n"])
)
TEXTS = st.lists(FRAGMENTS, min_size=1, max_size=8).map("".join).filter(lambda text: text.strip())


@pytest.fixture(params=[*KINDS, "CTRL"])
def kind(request, tmp_path_factory):
    if request.param == "CTRL":
        return ctrl(tmp_path_factory.mktemp("ctrl"))
    return built(request.param)


def readable(tokenizer, ids):
    return [tokenizer.convert_ids_to_tokens(i) for i in ids]


class TestNoControlTokenComesOfText:
    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_by_spelling(self, kind, spelling):
        reader = TextTokenizer(kind)
        for text in (spelling, f"a{spelling}b", f"hello {spelling} {spelling}"):
            ids = reader.inner(text)
            assert not reader.special_ids.intersection(ids), readable(kind, ids)
            if text == kind.unk_token:
                assert ids != [kind.unk_token_id]

    @pytest.mark.slow
    @given(text=TEXTS)
    @settings(max_examples=150, deadline=None)
    def test_of_any_text(self, text):
        for name in KINDS:
            reader = TextTokenizer(built(name))
            for ids in (reader.inner(text), reader.inner(text, continued=True), reader.batch([text, "x"])[0]):
                assert not reader.special_ids.intersection(ids), (name, text)

    def test_not_in_a_long_text_either(self):
        for name in KINDS:
            reader = TextTokenizer(built(name))
            ids = reader.inner("".join(SPECIAL) * 50 + "hello")
            assert not reader.special_ids.intersection(ids), name


@pytest.mark.slow
@given(text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_every_character_is_found_in_what_runs(text):
    for name in LOSSLESS:
        tokenizer = built(name)
        shown = tokenizer.decode(TextTokenizer(tokenizer).inner(text), clean_up_tokenization_spaces=False)
        # `▁` in a text is a space to those that write spaces so.
        told = text.replace("▁", " ") if name.startswith("pieces") else text
        if name == "pieces, first":  # its decoder drops a space that a text begins with
            shown, told = shown.lstrip(" "), told.lstrip(" ")
        assert shown == told, name


@pytest.mark.slow
@given(text=TEXTS)
@settings(max_examples=100, deadline=None)
def test_characters_that_are_kept_stand_where_they_are_said_to(text):
    for name in KINDS:
        tokenizer = built(name)
        if not tokenizer.is_fast:
            continue
        reader = TextTokenizer(tokenizer)
        ids, spans = reader.placed(text)
        assert len(ids) == len(spans)
        assert all(0 <= start <= end <= len(text) for start, end in spans)
        covered = {at for start, end in spans for at in range(start, end)}
        if name in LOSSLESS:
            assert covered >= {at for at, character in enumerate(text) if not character.isspace()}


class TestBegin:
    def test_as_the_tokenizer_begins(self, kind):
        reader = TextTokenizer(kind)
        whole = kind("hello the")["input_ids"]
        assert reader.ids("hello the") == (whole[:-1] if whole[-1] == kind.eos_token_id else whole)
        assert reader.batch(["hello", "the"]) == kind(["hello", "the"], add_special_tokens=False)["input_ids"]

    def test_a_named_bos_is_not_put_where_the_tokenizer_puts_none(self):
        tokenizer = no_bos()
        assert tokenizer.bos_token_id is not None
        reader = TextTokenizer(tokenizer)
        assert (reader.begin, reader.bos, reader.ids("hello")) == ((), None, reader.inner("hello"))

    def test_nothing_is_put_behind_a_text(self):
        from tokenizers import processors

        tokenizer = byte_level()
        first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            "<s> </s> $A </s>", special_tokens=[("<s>", first), ("</s>", last)]
        )
        reader = TextTokenizer(tokenizer)
        assert reader.begin == (first, last)
        assert reader.ids("hello") == [first, last, *reader.inner("hello")]


class TestWords:
    def test_added_words_are_text_as_before(self, kind):
        reader = TextTokenizer(kind)
        if not kind.is_fast:
            pytest.skip("a tokenizer in Python is asked for pieces without its added words")
        text = "hello covid\n\nthe   x"
        assert reader.inner(text) == kind(text, add_special_tokens=False)["input_ids"]

    def test_an_added_word_of_the_template_is_a_control_token(self):
        tokenizer = byte_level()
        tokenizer.chat_template = "covid: {{ messages[0].content }}"
        assert kept(tokenizer, "covid") not in TextTokenizer(tokenizer).inner("a covid case")

    def test_a_word_that_the_model_has_no_embedding_for_is_read_in_pieces(self):
        tokenizer = byte_level()
        rows = kept(tokenizer, "covid")
        ids = TextTokenizer(tokenizer, rows).inner("hello covid")
        assert max(ids) < rows
        assert tokenizer.decode(ids) == "hello covid"

    def test_ids_beyond_the_embedding_are_refused(self):
        tokenizer = byte_level()
        with pytest.raises(InputError, match="no embedding"):
            TextTokenizer(tokenizer, 3).inner("hello")


def kept(tokenizer, word):
    return tokenizer.convert_tokens_to_ids(word)


def test_what_cannot_be_but_a_control_token_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="</s>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="</s>")
    reader = TextTokenizer(tokenizer)
    assert reader.inner("a") == [1]
    with pytest.raises(InputError, match="control token"):
        reader.inner("x")


def test_text_that_the_tokenizer_drops_is_known():
    letters = TextTokenizer(built("letters"))
    assert not letters.keeps("\u200b\ufeff")
    assert not letters.keeps("漢字")
    assert letters.keeps("a漢")
    assert TextTokenizer(built("byte-level")).keeps("漢\u200b")


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="needs sentencepiece not to be installed")
def test_a_tokenizer_whose_package_is_missing_is_refused_at_the_start(tmp_path):
    # GPT-SW3's is in Python and needs SentencePiece.
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPTSw3Tokenizer"}')
    (tmp_path / "spiece.model").write_text("x")
    with pytest.raises(ModelError, match="SentencePiece"):
        load_model(tmp_path)
