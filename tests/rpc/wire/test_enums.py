"""Members of records and numbers of the wire are the same, each by its name."""

import pytest

from monitor.records import ErrorTerm, FinishReason
from monitor.rpc.wire import enums
from monitor.v1 import monitor_pb2 as pb

TABLES = {
    "Phase": enums.PHASE,
    "Severity": enums.SEVERITY,
    "Action": enums.ACTION,
    "Mode": enums.MODE,
    "ClampWhere": enums.WHERE,
    "ErrorTerm": enums.ERROR_TERM,
    "CheckStatus": enums.STATUS,
}


@pytest.mark.parametrize("name", TABLES)
def test_members_of_records_and_of_the_wire_are_the_same(name):
    described = pb.DESCRIPTOR.enum_types_by_name[name]
    known = {value.name: value.number for value in described.values if not value.name.endswith("UNSPECIFIED")}
    table = TABLES[name]
    assert sorted(table.values()) == sorted(known.values())
    for member, number in table.items():
        assert described.values_by_number[number].name.endswith(f"_{member.name}")


def test_finish_reasons_are_those_of_what_ended_with_status_ok():
    """A stream of another server's that broke off is told in a message, and no error of the call."""
    assert set(enums.FINISH_REASON) == set(FinishReason) - {FinishReason.CANCELLED}
    for reason, number in enums.FINISH_REASON.items():
        assert pb.FinishReason.Name(number) == f"FINISH_REASON_{reason.name}"


def test_what_a_caller_leaves_out_is_the_mildest():
    assert enums.ERROR_TERM_OF[pb.ERROR_TERM_UNSPECIFIED] is ErrorTerm.KEEP


def test_wire_numbers_are_read_as_they_are_written():
    assert {where: number for number, where in enums.WHERE_OF.items()} == enums.WHERE
    terms = {term: number for number, term in enums.ERROR_TERM_OF.items() if number}
    assert terms == enums.ERROR_TERM
    assert len(enums.ERROR_TERM_OF) == len(enums.ERROR_TERM) + 1


def test_roles_have_the_names_of_chat_templates():
    described = pb.DESCRIPTOR.enum_types_by_name["Role"].values_by_number
    for number, name in enums.ROLE.items():
        assert described[number].name == f"ROLE_{name.upper()}"
    assert pb.ROLE_UNSPECIFIED not in enums.ROLE
