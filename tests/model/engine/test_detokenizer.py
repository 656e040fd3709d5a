"""Text of responses with a tokenizer that spells unknown characters byte by byte, as Llama 2, Mistral and Gemma do."""

import random

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from monitor.model.engine.detokenizer import TextStream, Vocabulary
from monitor.model.engine.readout import Taken
from monitor.model.engine.requests import GenerationRequest
from monitor.model.engine.sampler import Likelihoods
from monitor.model.engine.sequence import Outbox, Sequence
from monitor.model.load.tokenizer import TextTokenizer
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.span import Span
from monitor.records import Action, Detection, Evidence, FinishReason, Mode, Phase, Sampling, Severity
from tests.model.running import Call
from tests.model.tiny import Recorder, dictionary, maxima, tokenizer
from tests.model.tokenizers import KINDS, built, ctrl

WORDS = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁I": 3, "▁want": 4, "▁to": 5, "▁go": 6, "!": 7}
BYTES = len(WORDS)


def byte_fallback() -> PreTrainedTokenizerFast:
    vocabulary = WORDS | {f"<0x{value:02X}>": BYTES + value for value in range(256)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def spelled(content: bytes) -> list[int]:
    return [BYTES + value for value in content]


def read(ids: list[int], *stop: str, prompt: tuple[int, ...] = ()) -> str:
    stream = TextStream(Vocabulary(byte_fallback()), stop, prompt)
    return "".join(map(stream.push, ids)) + stream.finish()


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"\xc3\xa9\xff", "é\ufffd!"), (b"A\xff", "A\ufffd!"), (b"A\xffB", "A\ufffd\ufffd!")],
)
def test_bytes_that_are_no_character_take_nothing_back(content: bytes, text: str) -> None:
    # Read as a whole, such a run is nothing but replacement characters; what was given before stays as it was.
    assert read([*spelled(content), WORDS["!"]]) == text


def test_nothing_that_a_model_may_write_raises() -> None:
    chance = random.Random(1)
    for _ in range(200):
        ids = [chance.randrange(400) for _ in range(40)]
        found = read(ids)
        kept = [i for i in ids if 3 <= i < BYTES]
        for word, number in WORDS.items():
            if number >= 3:
                piece = word.replace("▁", "")
                assert found.count(piece) >= kept.count(number)


def test_valid_text_comes_as_it_is() -> None:
    chance = random.Random(2)
    for _ in range(50):
        parts = [chance.choice(["é", "漢", "🙂", "a", "!"]) for _ in range(20)]
        ids = [i for part in parts for i in ([WORDS["!"]] if part == "!" else spelled(part.encode()))]
        assert read(ids) == "".join(parts)


def test_the_space_behind_the_prompt_is_kept() -> None:
    ids = [WORDS["▁to"], WORDS["▁go"]]
    assert read(ids, prompt=(1, WORDS["▁I"], WORDS["▁want"])) == " to go"


def test_nothing_of_the_prompt_comes_with_the_response() -> None:
    for last in (WORDS["▁want"], BYTES + 0xC3, BYTES + 0xFF, 1, 2):
        assert read([WORDS["▁to"], WORDS["!"]], prompt=(1, last)).strip() == "to!"


def test_letters_in_front_of_an_incomplete_character_are_not_lost() -> None:
    half = spelled("é".encode()[:1])
    assert read([*spelled(b"ab"), *half]) == "ab"


class Passes:
    """A sequence that goes from pass to pass without a model."""

    def __init__(self, prompt: tuple[int, ...], new: int, stop: str, **options: object) -> None:
        self.call, self.prompt = Call(prompt, Recorder()), prompt
        request = GenerationRequest(
            "a",
            prompt,
            Sampling(max_new_tokens=new, stop=(stop,)),
            self.call.observer,
            self.call.observer,
            **options,
        )
        self.outbox = Outbox(self.call.emit)
        self.sequence = Sequence(request, self.outbox, Vocabulary(tokenizer()), frozenset({1}), new)
        self.bank = FeatureBank(dictionary(), maxima(), (3, 4))
        self._pass(0, len(prompt))

    def run(self, drawn: list[int]) -> Call:
        for number, token in enumerate(drawn):
            self.sequence.drew(token, Likelihoods(-1.0, ()))
            if not self.sequence.ended:
                self._pass(len(self.prompt) + number, 1)
        self.outbox.deliver()
        return self.call

    def _pass(self, position: int, count: int) -> None:
        taken = Taken(self.bank, np.zeros((count, self.bank.width), np.float32), 2)
        self.sequence.saw(position + count, None, taken, Span("a", 0, count, position, True))


def test_a_stop_string_in_the_last_tokens_is_why_it_ended() -> None:
    letters = tokenizer()("abcd", add_special_tokens=False)["input_ids"]
    call = Passes((0, 5, 6), 4, "cd").run([*letters, 9])
    assert call.finished(1).reason is FinishReason.STOP
    assert call.text == "ab"


def test_no_token_behind_a_stop_string_is_released() -> None:
    prompt, letters = (0, 5, 6), tokenizer()("abcdefgh", add_special_tokens=False)["input_ids"]
    call = Passes(prompt, 8, "cd", include_tokens=True).run([*letters, 9])
    last = call.finished(1)
    assert last.coverage.complete
    assert [token.token_id for token in call.tokens] == [*prompt, *letters[:4]]
    assert (call.text, last.reason, last.released, last.tokens_generated) == ("ab", FinishReason.STOP, 7, 4)


def test_text_of_single_tokens_is_what_the_decoder_gives() -> None:
    fast = tokenizer()
    chance = random.Random(4)
    for _ in range(60):
        parts = [chance.choice(["é", "漢", "🙂", "a", " b", "!"]) for _ in range(20)]
        ids = fast("".join(parts), add_special_tokens=False)["input_ids"]
        for at in sorted(chance.sample(range(len(ids)), 3), reverse=True):
            ids.insert(at, chance.choice([0, 1]))  # control tokens, which are no text
        quick, slow = Vocabulary(fast), Vocabulary(fast)
        slow.alone = lambda _: None
        one, other = TextStream(quick), TextStream(slow)
        assert [one.push(i) for i in ids] == [other.push(i) for i in ids]
        assert one.finish() == other.finish()


class TestText:
    def feed(self, text: str, *stop: str) -> tuple[list[str], TextStream]:
        stream = TextStream(Vocabulary(tokenizer()), stop)
        return [stream.push(i) for i in tokenizer()(text, add_special_tokens=False)["input_ids"]], stream

    def test_characters_come_whole(self) -> None:
        pieces, stream = self.feed("aé漢🙂")
        assert "".join(pieces) + stream.finish() == "aé漢🙂"
        assert all("\ufffd" not in piece for piece in pieces)

    def test_the_beginning_of_a_stop_string_is_held_back(self) -> None:
        pieces, stream = self.feed("one\n\nHum", "\n\nHuman:")
        assert "".join(pieces) == "one"
        assert stream.finish() == "\n\nHum"

    def test_text_ends_before_the_first_stop_string(self) -> None:
        pieces, stream = self.feed("one STOP two END", "END", "STOP")
        assert "".join(pieces) == "one "
        assert (stream.stopped, stream.finish()) == (True, "")

    def test_special_tokens_have_no_text(self) -> None:
        assert TextStream(Vocabulary(tokenizer())).push(1) == ""


class TestEveryKindOfTokenizer:
    """What streams token by token is what the tokenizer makes of the whole."""

    @pytest.mark.parametrize("kind", [*KINDS, "CTRL"])
    def test_pieces_joined_are_the_text(self, kind, tmp_path):
        own = ctrl(tmp_path) if kind == "CTRL" else built(kind)
        reader = TextTokenizer(own)
        for text in ("hello the fox", "the quick\n\nbrown fox. é 漢字 🙂 x", "a  b\n"):
            ids = reader.inner(text)
            stream = TextStream(Vocabulary(own))
            pieces = [stream.push(i) for i in ids]
            shown = [i for i in ids if i != own.unk_token_id]
            whole = own.decode(shown, clean_up_tokenization_spaces=False)
            assert "".join(pieces) + stream.finish() == whole
            assert "\ufffd" not in whole

    @pytest.mark.parametrize("kind", ["Python", "Python, bytes", "CTRL"])
    def test_a_tokenizer_in_python_streams(self, kind, tmp_path):
        own = ctrl(tmp_path) if kind == "CTRL" else built(kind)
        stream, text = TextStream(Vocabulary(own)), "the quick brown fox jumps " * 20
        pieces = [stream.push(i) for i in TextTokenizer(own).inner(text)]
        assert sum(1 for piece in pieces if piece) > 50
        assert ("".join(pieces) + stream.finish()).strip() == text.strip()

    @pytest.mark.parametrize("kind", [*KINDS, "CTRL"])
    @pytest.mark.parametrize("marker", ["<tool_call>", "<|im_start|>", "[INST]"])
    def test_markers_that_the_model_writes_are_shown(self, kind, marker, tmp_path):
        own = ctrl(tmp_path) if kind == "CTRL" else built(kind)
        reader = TextTokenizer(own)
        ids = [*reader.inner("hello"), own.convert_tokens_to_ids(marker), *reader.inner("the")]
        stream = TextStream(Vocabulary(own))
        text = "".join(map(stream.push, ids)) + stream.finish()
        assert "".join(text.split()) == f"hello{marker}the"

    @pytest.mark.parametrize("kind", [*KINDS, "CTRL"])
    @pytest.mark.parametrize("marker", ["<tool_call>", "<|im_start|>", "</s>"])
    def test_they_can_be_stop_strings(self, kind, marker, tmp_path):
        own = ctrl(tmp_path) if kind == "CTRL" else built(kind)
        reader = TextTokenizer(own)
        marked = own.convert_tokens_to_ids(marker)
        stream, text = TextStream(Vocabulary(own), (marker,)), ""
        for token_id in [*reader.inner("hello"), marked, *reader.inner("fox the fox")]:
            text += stream.push(token_id)
            if stream.stopped:
                break
        assert stream.stopped
        assert (text + stream.finish()).strip() == "hello"


def test_part_of_a_character_is_spelled_as_that_character():
    vocabulary = Vocabulary(tokenizer())
    ids = tokenizer()("a漢é🙂!", add_special_tokens=False)["input_ids"]
    assert [vocabulary.spelled(ids, at) for at in range(len(ids))] == [
        "a",
        *("漢" for _ in range(3)),
        *("é" for _ in range(2)),
        *("🙂" for _ in range(4)),
        "!",
    ]
    broken = ids[1:3]
    assert vocabulary.spelled(broken, 0) == "\ufffd"


def test_evidence_shows_characters():
    vocabulary = Vocabulary(tokenizer())
    ids = tokenizer()("a漢!", add_special_tokens=False)["input_ids"]
    evidence = tuple(Evidence(at, ids[at], vocabulary.text(ids[at]), 1.0) for at in (0, 2, 4))
    found = Detection(
        "p", "r", "", Severity.LOW, Action.ALERT, Mode.ENFORCE, Phase.PROMPT, 2, 1.0, 0.5, evidence
    )
    assert "\ufffd" in evidence[1].text
    assert [token.text for token in vocabulary.respelled(found, ids).evidence] == ["a", "漢", "!"]
    # Of a character that is not released whole, nothing is shown.
    assert [token.text for token in vocabulary.respelled(found, ids[:3]).evidence][1] == "\ufffd"


def test_texts_of_tokens_joined_are_the_text():
    vocabulary = Vocabulary(tokenizer())
    ids = tokenizer()("a漢é🙂!", add_special_tokens=False)["input_ids"]
    assert vocabulary.pieces(ids) == ["a", "", "", "漢", "", "é", "", "", "", "🙂", "!"]
    assert vocabulary.pieces(ids[2:5]) == ["\ufffd", "\ufffd", "\ufffd"], "what is cut off stays unknown"
