"""Errors as HTTP: status, body and headers, by kind."""

import pytest

from monitor import errors
from monitor.errors import BadRequest, MonitoringFailed, NotComputed, Overloaded, Violation
from monitor.http.errors import STATUS, HttpError, answer
from monitor.rpc.access.call_interceptor import CODES


def test_every_status_that_a_call_can_end_with_has_one_here():
    assert set(CODES) - {"OK", "CANCELLED"} == set(STATUS)


KINDS = {
    "wrong field": (BadRequest(Violation("n", "is 0")), 400, "invalid_request_error", "bad_request"),
    "body": (HttpError(413, "too large"), 413, "invalid_request_error", "bad_request"),
    "token": (errors.Unauthenticated("no"), 401, "authentication_error", "unauthenticated"),
    "role": (errors.PermissionDenied("no"), 403, "permission_error", "permission_denied"),
    "model": (errors.NotFound("no"), 404, "not_found_error", "not_found"),
    "busy": (Overloaded("later", 0.3), 429, "rate_limit_error", "overloaded"),
    "draining": (errors.Unavailable("no"), 503, "server_error", "unavailable"),
    "unmonitored": (MonitoringFailed("secret", "gap"), 503, "server_error", "monitoring_failed"),
    "slow": (errors.TooSlow("no"), 504, "server_error", "too_slow"),
    "NaN": (NotComputed("secret"), 500, "server_error", "internal"),
    "bug": (KeyError("secret"), 500, "server_error", "internal"),
}


@pytest.mark.parametrize(("error", "status", "kind", "code"), KINDS.values(), ids=KINDS)
def test_each_kind_of_error(error, status, kind, code):
    found = answer(error, "id-1")
    body = found.body["error"]
    assert (found.status, body["type"], body["code"]) == (status, kind, code)
    assert body["request_id"] == "id-1"
    assert "secret" not in body["message"]


def test_headers_say_what_clients_act_on():
    assert answer(Overloaded("later", 0.3), "").headers == {"retry-after": "1", "retry-after-ms": "300"}
    assert answer(errors.Unauthenticated("no"), "").headers == {"www-authenticate": "Bearer"}


def test_the_wrong_field_is_the_param():
    body = answer(BadRequest(Violation("n", "is 0"), Violation("seed", "is text")), "").body["error"]
    assert body["param"] == "n"
    assert body["message"] == "n: is 0; seed: is text"


def test_a_long_text_is_cut():
    assert len(answer(BadRequest(Violation("n", "x" * 10_000)), "").body["error"]["message"]) == 2000
