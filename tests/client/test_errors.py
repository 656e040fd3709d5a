"""Exceptions of a call, with what the server said of it."""

from __future__ import annotations

import re

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

import monitor.client
from monitor.client import CallFailed
from monitor.client.errors import Unreachable, failure
from monitor.errors import BadRequest, MonitorError, Overloaded, Violation
from monitor.rpc import error_status


def test_what_is_wrong_with_a_request_is_an_exception(client):
    with pytest.raises(CallFailed) as caught:
        client.generate("a", clamps={99: -1.0})
    error = caught.value
    assert error.code == "INVALID_ARGUMENT"
    assert error.violations == (Violation("generation.clamps[0].feature", "99 does not exist"),)
    assert re.fullmatch("[0-9a-f]{32}", error.request_id)
    assert error.retry_after is None
    assert "99 does not exist" in str(error)


def test_details_that_a_proxy_made_up_do_no_harm():
    class Refused(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

        def details(self):
            return "upstream"

        def trailing_metadata(self):
            return [("grpc-status-details-bin", b"\xff\xff not a status")]

    error = monitor.client.errors.failure(Refused())
    assert (error.code, error.details, error.violations, error.retry_after) == (
        "UNAVAILABLE",
        "upstream",
        (),
        None,
    )


def test_a_retry_delay_of_nothing_is_a_delay():
    status = error_status.status_of(Overloaded("full", retry_after=0.0), "r")
    assert duration_pb2.Duration() == next(
        retry.retry_delay
        for retry in (error_details_pb2.RetryInfo(),)
        if any(detail.Unpack(retry) for detail in status.details)
    )
    assert ("grpc-retry-pushback-ms", "0") in error_status.grpc_status(status).trailing_metadata


class Status(grpc.RpcError):
    """A failed call with these trailers."""

    def __init__(self, trailers):
        self.trailers = trailers

    def code(self):
        return grpc.StatusCode.INVALID_ARGUMENT

    def details(self):
        return None

    def trailing_metadata(self):
        return self.trailers


@pytest.mark.parametrize("trailers", [None, (), (("other", "x"),)])
def test_without_details_there_is_the_status_alone(trailers):
    error = failure(Status(trailers))
    assert (error.code, error.details, error.retry_after, error.request_id) == (
        "INVALID_ARGUMENT",
        "no details",
        None,
        "",
    )
    assert str(error) == "the server answered INVALID_ARGUMENT: no details"


def test_details_of_the_server_become_fields():
    status = error_status.status_of(BadRequest(Violation("input.text", "is empty")), "some-id")
    error = failure(Status((("grpc-status-details-bin", status.SerializeToString()),)))
    assert error.violations == (Violation("input.text", "is empty"),)
    assert error.request_id == "some-id"
    assert str(error).splitlines()[1:] == ["  input.text: is empty"]
    assert isinstance(error, MonitorError)
    assert Unreachable("nobody").code == "UNAVAILABLE"
