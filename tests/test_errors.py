"""The exception tree: its gRPC statuses are those of the drawing, and nothing in it is lost."""

import re

import grpc
import pytest

from monitor import errors
from monitor.errors import BadRequest, EngineDied, MonitorError, MonitoringFailed, Overloaded, Violation

DRAWN = re.findall(r"^    [│├└─ ]*(\w+) +([A-Z_]{4,})?", errors.__doc__, re.MULTILINE)
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, MonitorError)
}


def test_the_drawing_names_every_error():
    assert {name for name, _ in DRAWN} == set(KINDS)


@pytest.mark.parametrize(("name", "code"), DRAWN)
def test_every_error_has_the_status_that_is_drawn(name, code):
    assert KINDS[name].code == (code or KINDS[name].__base__.code)
    assert grpc.StatusCode[KINDS[name].code]


def test_what_errors_carry():
    wrong = BadRequest(Violation("a.b", "is empty"), Violation("c", "is 3; write 4"))
    assert str(wrong) == "a.b: is empty; c: is 3; write 4"
    assert [violation.field for violation in wrong.violations] == ["a.b", "c"]
    assert (Overloaded("full", 1.5).retry_after, str(Overloaded("full", 1.5))) == (1.5, "full")
    assert (MonitoringFailed("m", "gap").cause, EngineDied.exit_code) == ("gap", 3)
