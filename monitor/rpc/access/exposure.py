"""Refuse to start a server that other machines reach without protection, unless the operator allows it."""

from __future__ import annotations

import ipaddress

import structlog

from monitor.errors import ConfigurationError
from monitor.settings import Settings, split_address

_log = structlog.get_logger(__name__)


def is_loopback(address: str) -> bool:
    """True where only this machine can reach HOST:PORT. A name other than localhost counts as reachable by others."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reflects(settings: Settings) -> bool:
    """Whether the reflection service is offered: as the setting says, else only on loopback without authentication."""
    if settings.reflection is not None:
        return settings.reflection
    return is_loopback(settings.listen) and settings.callers is None


def check_exposure(settings: Settings) -> None:
    """Raise ConfigurationError where other machines reach a server without authentication or encryption.

    With the setting `insecure_listen` it does nothing.
    """
    for name, address in _ports(settings).items():
        problem = _problem(settings, address)
        if problem is not None and not settings.insecure_listen:
            raise ConfigurationError(
                f"{name} is {address}, which other machines reach, and {problem}; "
                "or set insecure_listen where something in front of this server does it"
            )


def announce_exposure(settings: Settings) -> None:
    """Log a warning for everything that is reachable from other machines without protection."""
    if not is_loopback(settings.metrics_listen):
        _log.warning("metrics are readable by everybody who reaches them", metrics=settings.metrics_listen)
    for address in _ports(settings).values():
        problem = _problem(settings, address)
        if problem is not None:
            _log.warning("INSECURE: other machines reach this server", listen=address, because=problem)


def _ports(settings: Settings) -> dict[str, str]:
    """The addresses at which calls are answered, by the name of the setting."""
    found = {"listen": settings.listen, "http_listen": settings.http_listen, "page": settings.page}
    return {name: address for name, address in found.items() if address is not None}


def _problem(settings: Settings, address: str) -> str | None:
    if is_loopback(address):
        return None
    if settings.callers is None:
        return "callers are not authenticated: set callers (a file that `sae-monitor token new` writes lines for)"
    if settings.tls_certificate is None:
        return "tokens would travel unencrypted: set tls_certificate and tls_key"
    return None
