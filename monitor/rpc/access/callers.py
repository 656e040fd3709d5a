"""The callers file: names, roles, and the token or certificate by which each caller is known.

It holds one JSON object on each line; lines that begin with `#` are comments. Tokens are kept as hashes only. They are
256 random bits, so a plain SHA-256 is as hard to invert as the token is to guess; a slow hash (scrypt, argon2) protects
passwords that people choose and would only make every call slow.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from monitor import utf8
from monitor.errors import ConfigurationError
from monitor.rpc.access.roles import Caller, Role

PREFIX = "saem_"
"""Prefix of every token, by which scanners for secrets find a leaked one."""
LARGEST_FILE = 1 << 20
MOST_CALLERS = 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HASH = re.compile(r"[0-9a-f]{64}")
_KEYS = ("name", "roles", "sha256", "certificate", "expires", "calls", "tokens")


@dataclass(frozen=True, slots=True)
class CallerEntry:
    """One line of the callers file."""

    caller: Caller
    sha256: str = ""
    """Hash of the whole token in hexadecimal; empty where the caller is known by a certificate."""
    certificate: str = ""
    """Common name or alternative name in the client certificate; empty where the caller is known by a token."""
    expires: float | None = None
    """Last second at which it is accepted, since 1970; None for no end."""


def new_token() -> str:
    """A new random token."""
    return PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """The hash that the callers file holds instead of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def entry_line(name: str, roles: Iterable[Role], token: str, expires: date | None = None) -> str:
    """The line of the callers file for a token. Raises ConfigurationError where the name is not allowed."""
    fields: dict[str, Any] = {"name": name, "roles": sorted(roles), "sha256": token_hash(token)}
    if expires is not None:
        fields["expires"] = expires.isoformat()
    line = json.dumps(fields)
    _entry(line)
    return line


def find_token(entries: Sequence[CallerEntry], token: str) -> CallerEntry | None:
    """The entry of a token, or None. Every entry is compared, in a time that does not depend on the hashes."""
    digest = token_hash(token)
    found = None
    for entry in entries:
        if hmac.compare_digest(entry.sha256, digest):
            found = entry
    return found


def find_certificate(entries: Sequence[CallerEntry], names: Sequence[str]) -> CallerEntry | None:
    """The first entry whose certificate name is among those of a verified client certificate, or None."""
    return next((entry for entry in entries if entry.certificate and entry.certificate in names), None)


def read_callers(path: Path) -> tuple[CallerEntry, ...]:
    """All entries of a callers file.

    Raises ConfigurationError that lists every wrong line, with what to write instead.
    """
    entries, problems = [], []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entries.append(_entry(line))
        except ConfigurationError as error:
            problems.append(f"{path}:{number}: {error}")
    if not entries and not problems:
        problems.append(f"{path}: has no callers; `sae-monitor token new NAME --role infer` writes a line")
    if len(entries) > MOST_CALLERS:
        problems.append(f"{path}: has {len(entries)} callers; {MOST_CALLERS} at most")
    if problems:
        raise ConfigurationError("\n".join(problems))
    return tuple(entries)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            raise ConfigurationError(
                f"{path}: larger than {LARGEST_FILE} bytes; this is not a file of callers"
            )
        return utf8.decode(raw)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except utf8.NotUtf8 as error:
        raise ConfigurationError(f"{path}:{error.line}: {error}") from None


def _entry(line: str) -> CallerEntry:
    # Errors never quote the line: if somebody wrote a token in place of its hash, it would reach a log.
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigurationError("not a JSON object; `sae-monitor token new NAME` writes a line") from None
    if not isinstance(fields, dict):
        raise ConfigurationError("not a JSON object; `sae-monitor token new NAME` writes a line")
    if not fields.keys() <= set(_KEYS):
        raise ConfigurationError(f"has keys that are not known; there are {', '.join(_KEYS)}")
    known = _Fields(fields)
    caller = Caller(known.name(), known.roles(), known.limit("calls"), known.limit("tokens"))
    digest = known.text("sha256", _HASH, "64 hexadecimal digits; never the token itself")
    certificate = known.text("certificate", re.compile(r".{1,253}"), "a name from the client's certificate")
    if bool(digest) == bool(certificate):
        raise ConfigurationError("give sha256 (of a token) or certificate (a name in it), and not both")
    return CallerEntry(caller, digest, certificate, known.expires())


class _Fields:
    """Reads the fields of one line and checks them."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def text(self, key: str, form: re.Pattern[str], wanted: str) -> str:
        value = self._fields.get(key, "")
        if value == "" and key not in self._fields:
            return ""
        if not isinstance(value, str) or form.fullmatch(value) is None:
            raise ConfigurationError(f"{key}: write {wanted}")
        return value

    def name(self) -> str:
        found = self.text("name", _NAME, "1 to 63 of a-z, 0-9, dot, dash and underscore")
        if not found:
            raise ConfigurationError("name: is missing; write who this is, such as gateway")
        return found

    def roles(self) -> frozenset[Role]:
        listed, known = self._fields.get("roles"), [role.value for role in Role]
        if not isinstance(listed, list) or not listed or not all(role in known for role in listed):
            raise ConfigurationError(f"roles: write a list of {', '.join(known)}")
        return frozenset(Role(role) for role in listed)

    def limit(self, key: str) -> int | None:
        value = self._fields.get(key)
        if value is not None and (type(value) is not int or not 0 < value < 2**53):
            raise ConfigurationError(f"{key}: write a whole number above 0, or leave it out")
        return value

    def expires(self) -> float | None:
        value = self._fields.get("expires")
        if value is None:
            return None
        try:
            # The token is accepted until the end of the named day.
            return datetime.combine(date.fromisoformat(value), time.max, UTC).timestamp()
        except (TypeError, ValueError, OverflowError):
            raise ConfigurationError("expires: write the last day as 2027-01-31") from None
