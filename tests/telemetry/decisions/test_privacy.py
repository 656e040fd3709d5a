"""Hashes of prompts and masks in text."""

import re
import time

import pytest

from monitor.errors import ConfigurationError
from monitor.settings import MASKS, Settings, decision_folder
from monitor.telemetry.decisions.privacy import PromptHash, TextMasks


def test_conversations_and_texts_have_different_hashes():
    hashing = PromptHash(b"k" * 16)
    turns = [{"role": "user", "content": "a"}]
    assert hashing(turns) == hashing([dict(turns[0])])
    assert len({hashing(turns), hashing("a"), hashing([{"role": "system", "content": "a"}])}) == 3
    assert hashing("\ud800")


def test_each_process_has_a_key_of_its_own_without_a_file():
    one, other = PromptHash.of_file(None), PromptHash.of_file(None)
    assert one("x") != other("x")
    assert one.key_id != other.key_id


def test_a_key_file_must_hold_a_key(tmp_path):
    path = tmp_path / "salt"
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        PromptHash.of_file(path)
    path.write_text("short\n")
    with pytest.raises(
        ConfigurationError, match=r"holds 5 bytes; write 16 to 4096, such as .*openssl"
    ) as error:
        PromptHash.of_file(path)
    assert "short" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mail a.b+c@mail.example.org!", "mail [email]!"),
        ("call +44 20 7946 0958 or 555-123-4567", "call [number] or [number]"),
        ("card 4111 1111 1111 1111, 3 cats", "card [number], 3 cats"),
        ("in 1999", "in [number]"),
        ("v1.2 of 12", "v1.2 of 12"),
        ("@a.b+c@d.e", "@a.b+c@d.e".replace("a.b+c@d.e", "[email]")),
        ("a@b.c+d@e.f", "[email]"),
    ],
)
def test_the_masks_that_are_built_in(text, masked):
    assert TextMasks(MASKS)(text) == masked


@pytest.mark.parametrize("text", ["a", "1", "a@", "a@b.", "a@b.c+", ".", "-", "1 1 1x", "+1"])
def test_the_masks_that_are_built_in_take_time_that_grows_with_the_text_alone(text):
    """They run in a thread that every request waits for, and hold Python's lock; a prompt may be megabytes long."""

    def seconds(count):
        long = "a@" + text * count
        began = time.thread_time()
        TextMasks(MASKS)(long)
        return time.thread_time() - began

    assert seconds(200_000) < 40 * seconds(20_000) + 1


def test_a_mask_is_no_template():
    assert TextMasks({r"\1": re.compile("(a)")})("a") == r"[\1]"


def test_the_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = Settings()
    assert decision_folder(settings, 50051) == tmp_path / "sae-monitor" / "decisions" / "50051"
    assert decision_folder(settings, 0) is None
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/unit:/other")
    assert str(decision_folder(settings, 7)) == "/var/lib/unit/decisions/7"
    assert decision_folder(Settings(decision_log=False), 7) is None
    assert decision_folder(Settings(decision_log=tmp_path), 0) == tmp_path
