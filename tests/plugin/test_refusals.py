"""What callers of vLLM's API are told, on its way through a stop reason."""

from monitor.errors import BadRequest, ConfigurationError, MonitoringFailed, Overloaded, Violation
from monitor.plugin.refusals import Refusal, refusal_in, refusal_of


def test_a_refusal_comes_out_as_it_went_in():
    made = Refusal(400, "clamps: write\na list")
    assert refusal_in(str(made)) == made


def test_other_stop_reasons_are_none():
    for reason in (None, 7, "", "policy: no", "refused: no", "x refused (400): y"):
        assert refusal_in(reason) is None


def test_errors_have_the_status_and_text_of_our_own_api():
    assert refusal_of(BadRequest(Violation("clamps", "write a list")), "r") == (400, "clamps: write a list")
    assert refusal_of(Overloaded("4 wait already", 0.5), "r").status == 429
    assert refusal_of(ConfigurationError("not proven"), "r").status == 503
    closed = refusal_of(MonitoringFailed("the tap missed a row", "tap_missed"), "r")
    assert (closed.status, "tap" in closed.why) == (503, False)
    assert "secret" not in refusal_of(RuntimeError("secret"), "r").why
    assert refusal_of(RuntimeError("secret"), "r").status == 500
