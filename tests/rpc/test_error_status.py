import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2

from monitor import errors
from monitor.errors import BadRequest, MonitorError, MonitoringFailed, Overloaded, TooLong, Violation
from monitor.rpc.access.call_interceptor import CODES
from monitor.rpc.error_status import DOMAIN, INTERNAL_TEXT, REASONS, REFUSED_TEXT, grpc_status, status_of


def unpacked(status):
    """The details of a status, by type."""
    found = {}
    for packed in status.details:
        message = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        assert packed.Unpack(message)
        found[type(message).__name__] = message
    return found


def violation(field="text", description="is wrong"):
    return Violation(field, description)


MADE = {
    TooLong: TooLong(violation()),
    BadRequest: BadRequest(violation()),
    Overloaded: Overloaded("later", 0.25),
    MonitoringFailed: MonitoringFailed("secret", "gap"),
}
KINDS = [MADE.get(kind) or kind("told") for kind in REASONS]


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
def test_each_kind_has_its_code_and_reason_and_names_the_request(error):
    status = status_of(error, "id-1")
    found = unpacked(status)
    assert code_pb2.Code.Name(status.code) == error.code
    assert error.code in CODES
    assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain) == (REASONS[type(error)], DOMAIN)
    assert found["RequestInfo"].request_id == "id-1"


def test_reasons_are_told_apart():
    assert len(set(REASONS.values())) == len(REASONS)


@pytest.mark.parametrize(
    "error",
    [KeyError("a prompt"), MonitorError("a prompt"), errors.NotComputed("a prompt"), SystemExit("a prompt")],
)
def test_unexpected_errors_quote_nothing(error):
    status = status_of(error, "id-1")
    assert (code_pb2.Code.Name(status.code), status.message) == ("INTERNAL", INTERNAL_TEXT)
    assert unpacked(status)["ErrorInfo"].reason == "INTERNAL"
    assert b"a prompt" not in status.SerializeToString()


def test_a_failure_of_monitoring_says_neither_what_failed_nor_who_refused():
    status = status_of(MonitoringFailed("policy weapons: gap", "gap"), "id-1")
    assert status.message == REFUSED_TEXT
    assert b"gap" not in status.SerializeToString()
    assert b"weapons" not in status.SerializeToString()


def test_wrong_fields_are_listed_and_many_or_long_ones_are_cut():
    error = BadRequest(*(violation(f"f{i}", "x" * 2000) for i in range(20)))
    status = status_of(error, "id-1")
    listed = unpacked(status)["BadRequest"].field_violations
    assert [one.field for one in listed] == [f"f{i}" for i in range(8)]
    assert {len(one.description) for one in listed} == {512}
    assert all(one.description.endswith("x…") for one in listed)
    assert len(status.message) == 512
    assert status.ByteSize() < 8192, "clients take 8 KiB of trailers"


def test_a_text_that_fits_is_not_cut():
    (one,) = unpacked(status_of(BadRequest(violation("f", "x" * 512)), ""))["BadRequest"].field_violations
    assert one.description == "x" * 512


def test_a_retry_delay_stands_where_grpc_looks_for_it():
    status = status_of(Overloaded("later", 1.25), "id-1")
    assert unpacked(status)["RetryInfo"].retry_delay.ToMilliseconds() == 1250
    converted = grpc_status(status)
    assert ("grpc-retry-pushback-ms", "1250") in tuple(converted.trailing_metadata)
    assert (converted.code, converted.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "later")


def test_without_a_delay_nothing_is_said_of_retries():
    names = [key for key, _ in grpc_status(status_of(errors.NotFound("no"), "")).trailing_metadata]
    assert names == ["grpc-status-details-bin"]
