"""Every error that this project raises on purpose.

    MonitorError                     INTERNAL
    ├── BadRequest                   INVALID_ARGUMENT      carries the wrong fields of a request
    │   └── TooLong                  INVALID_ARGUMENT      text beyond the model's context
    ├── InputError                   INVALID_ARGUMENT      a command's text or file that cannot be used
    ├── NotFound                     NOT_FOUND             unknown policy, rule or feature
    ├── Overloaded                   RESOURCE_EXHAUSTED    carries a retry delay
    ├── Unavailable                  UNAVAILABLE           draining, engine not running, log cannot be written
    ├── Unauthenticated              UNAUTHENTICATED       no token, or none that is known
    ├── PermissionDenied             PERMISSION_DENIED     the caller lacks a role
    ├── TooSlow                      DEADLINE_EXCEEDED     longer than the server allows for any call
    ├── EngineDied                   UNAVAILABLE           the process ends with exit code 3
    ├── NotComputed                  INTERNAL              the model computed NaN or infinity
    ├── MonitoringFailed             FAILED_PRECONDITION   tokens could not be scored, `on_error: closed`
    └── ConfigurationError           FAILED_PRECONDITION   start-up: exit code 2
        ├── ModelError                                     the model cannot be loaded or tapped
        ├── DictionaryError                                missing, malformed, pickled, wrong width
        ├── SelfTestFailed                                 model and dictionary load, and do not fit each other
        └── PolicyError                                    carries every problem with file:line:column

Messages say what was found and what to write instead. They never contain prompts, outputs, or paths of the server that
the caller did not name.
"""

from __future__ import annotations

from dataclasses import dataclass


class MonitorError(Exception):
    """Root of the tree; `code` is the name of the gRPC status that a caller sees."""

    code = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field of a request: its path in the message, and what to write instead."""

    field: str
    description: str


class BadRequest(MonitorError):
    """The request has fields that are missing or wrong; `violations` lists each."""

    code = "INVALID_ARGUMENT"

    def __init__(self, *violations: Violation) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))


class TooLong(BadRequest):
    """The text does not fit the model's context and truncation was not asked for."""


class NotFound(MonitorError):
    """A named policy, rule or feature does not exist here."""

    code = "NOT_FOUND"


class Overloaded(MonitorError):
    """A limit of the server or of the caller is reached; try again after `retry_after` seconds."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Unavailable(MonitorError):
    """The server cannot take the request now: it is draining, its engine does not run, or its log cannot be written."""

    code = "UNAVAILABLE"


class Unauthenticated(MonitorError):
    """The caller did not prove who it is. The message is the same for every cause."""

    code = "UNAUTHENTICATED"


class PermissionDenied(MonitorError):
    """The caller is known, but its roles do not allow this call."""

    code = "PERMISSION_DENIED"


class TooSlow(MonitorError):
    """The call took longer than the server allows for any call, or its message took too long to arrive."""

    code = "DEADLINE_EXCEEDED"


class EngineDied(MonitorError):
    """The engine has stopped running. The process exits with code 3, so that its supervisor starts another."""

    code = "UNAVAILABLE"
    exit_code = 3


class NotComputed(MonitorError):
    """The model's logits hold NaN or infinity, so there is no next token."""


class MonitoringFailed(MonitorError):
    """Tokens could not be scored and a policy says `on_error: closed`."""

    code = "FAILED_PRECONDITION"

    def __init__(self, message: str, cause: str) -> None:
        self.cause = cause
        super().__init__(message)


class ConfigurationError(MonitorError):
    """A setting, file or model that the operator gave cannot be used. The process exits with code 2."""

    code = "FAILED_PRECONDITION"


class ModelError(ConfigurationError):
    """The model cannot be loaded, or its layers cannot be found."""


class DictionaryError(ConfigurationError):
    """The dictionary cannot be loaded, or does not fit the model."""


class SelfTestFailed(ConfigurationError):
    """The dictionary does not explain this model as it should. The message says what differs and the likely cause."""


class PolicyError(ConfigurationError):
    """One or more policy files cannot be used; the message lists every problem with its position."""


class InputError(MonitorError):
    """A text or file that was given to a command cannot be used."""

    code = "INVALID_ARGUMENT"
