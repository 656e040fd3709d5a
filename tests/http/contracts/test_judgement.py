"""What the contracts share."""

from monitor.errors import BadRequest, Violation
from monitor.http.contracts.judgement import conversation, whole
from tests.http.conftest import serving
from tests.rpc.fake import FakeRuntime, policies


def test_messages_become_turns_of_text():
    found = conversation(
        [
            {"role": "developer", "content": "a"},
            {"role": "user", "content": ["b", {"type": "text", "text": "c"}, {"type": "input_audio"}]},
            {"role": "robot", "content": "d"},
            {"role": "assistant", "content": ""},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        ]
    )
    assert found.turns == (
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b\nc\n\nd"},
        {"role": "assistant", "content": "no"},
    )
    assert found.unread == 1


def test_half_characters_are_replaced():
    assert whole("a\ud800b") == "a?b"
    assert whole("ä") == "ä"


class Plain(FakeRuntime):
    """A model whose chat template takes no conversation."""

    def tokenise(self, content, **options):
        if not isinstance(content, str):
            raise BadRequest(Violation("conversation", "this model has no chat template"))
        return super().tokenise(content, **options)


def test_a_conversation_that_the_template_refuses_is_read_as_text():
    chosen = policies()
    with serving(Plain(chosen.watch), chosen) as running:
        body = {
            "body": {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "bomb"}]}
        }
        assert "status_code" in running.post("/request", body).json()["action"]
