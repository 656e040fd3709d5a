"""Tables between enums of the records and of monitor.v1. A new member without a counterpart fails at import."""

from __future__ import annotations

from monitor.records import Action, ErrorTerm, FinishReason, Holding, Mode, Phase, Severity, Status, Where
from monitor.v1 import monitor_pb2 as pb

PHASE: dict[Phase, pb.Phase] = {phase: getattr(pb, f"PHASE_{phase.name}") for phase in Phase}
SEVERITY: dict[Severity, pb.Severity] = {
    severity: getattr(pb, f"SEVERITY_{severity.name}") for severity in Severity
}
ACTION: dict[Action, pb.Action] = {action: getattr(pb, f"ACTION_{action.name}") for action in Action}
MODE: dict[Mode, pb.Mode] = {mode: getattr(pb, f"MODE_{mode.name}") for mode in Mode}
WHERE: dict[Where, pb.ClampWhere] = {where: getattr(pb, f"CLAMP_WHERE_{where.name}") for where in Where}
ERROR_TERM: dict[ErrorTerm, pb.ErrorTerm] = {
    term: getattr(pb, f"ERROR_TERM_{term.name}") for term in ErrorTerm
}
STATUS: dict[Status, pb.CheckStatus] = {
    status: getattr(pb, f"CHECK_STATUS_{status.name}") for status in Status
}

FINISH_REASON = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.POLICY: pb.FINISH_REASON_POLICY,
    FinishReason.ERROR: pb.FINISH_REASON_ERROR,
}
"""Finish reasons of what ends with status OK. All others end the call with an error or a cancellation; ERROR does so of
generations, and is said of streams that another server broke off."""

FINISH_OF = {
    pb.FINISH_REASON_UNSPECIFIED: FinishReason.STOP,
    pb.FINISH_REASON_STOP: FinishReason.STOP,
    pb.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    pb.FINISH_REASON_ERROR: FinishReason.ERROR,
}
"""From the wire to the record: why what another server writes has ended."""

HOLDING: dict[Holding, pb.Holding] = {holding: getattr(pb, f"HOLDING_{holding.name}") for holding in Holding}

HOLDING_OF = {pb.HOLDING_UNSPECIFIED: Holding.HOLD} | {number: holding for holding, number in HOLDING.items()}
"""From the wire to the record. Numbers that this version does not know are missing."""

ROLE = {
    pb.ROLE_SYSTEM: "system",
    pb.ROLE_USER: "user",
    pb.ROLE_ASSISTANT: "assistant",
    pb.ROLE_TOOL: "tool",
}
"""Roles of messages, from the wire to the names that chat templates use."""

WHERE_OF = {number: where for where, number in WHERE.items()}
"""From the wire to the record. Numbers that this version does not know are missing, and so is UNSPECIFIED: see
`Where.by_default`."""

ERROR_TERM_OF = {pb.ERROR_TERM_UNSPECIFIED: ErrorTerm.KEEP} | {
    number: term for term, number in ERROR_TERM.items()
}
"""From the wire to the record. Numbers that this version does not know are missing."""
