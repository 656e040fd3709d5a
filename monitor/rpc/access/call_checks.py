"""The way in: who calls, may they, is there room for them.

Joins access, roles, allowances and admission, in that order, so that whoever is not known takes nothing from those
who are. Does not know what a call does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monitor.errors import PermissionDenied
from monitor.rpc.access import roles
from monitor.rpc.access.admission import Admission
from monitor.rpc.access.authentication import Authenticator, Peer
from monitor.rpc.access.quota import CallerQuotas, Charge
from monitor.rpc.access.roles import Caller
from monitor.telemetry.metrics.security import SecurityMetrics


class CallChecks:
    """Lets calls of MonitorService in one by one. Lives on the event loop."""

    def __init__(
        self, access: Authenticator, allowances: CallerQuotas, admission: Admission, metrics: SecurityMetrics
    ) -> None:
        self._access, self._allowances, self._admission = access, allowances, admission
        self._metrics = metrics

    @contextmanager
    def call(self, method: str, peer: Peer) -> Iterator[Charge]:
        """One call in progress, before its message is read; `roles.caller` says whose it is from here on.

        Raises Unauthenticated, PermissionDenied, Overloaded or Unavailable where it may not begin.
        """
        who = self.identify(peer)
        with self._counted():
            roles.check_method(who, method)
        with self._admission.call(), self._allowances.call(who) as charge:
            self._metrics.began(who.name)
            yield charge

    def identify(self, peer: Peer) -> Caller:
        """Who calls, remembered in `roles.caller` for this task. Raises Unauthenticated."""
        who = self._access.caller(peer)
        roles.caller.set(who)
        return who

    def check(self, request: Any) -> None:
        """PermissionDenied where a message asks for more than its method does."""
        with self._counted():
            roles.check_request(roles.caller.get(), request)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except PermissionDenied:
            self._metrics.refused("role")
            raise
