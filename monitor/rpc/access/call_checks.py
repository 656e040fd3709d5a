"""The checks that a call passes before its message is read: authentication, role, admission and quota, in this order.

A caller that cannot be authenticated therefore uses no capacity.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from monitor.errors import PermissionDenied
from monitor.rpc.access import roles
from monitor.rpc.access.admission import Admission
from monitor.rpc.access.authentication import Authenticator, Peer
from monitor.rpc.access.quota import CallerQuotas, Charge
from monitor.rpc.access.roles import Caller
from monitor.telemetry.metrics.security import SecurityMetrics

RECHECKED = 5.0
"""Seconds between two looks at whether the caller of a feed is still accepted: tokens expire, and are withdrawn."""


class CallChecks:
    """Checks each call of MonitorService. Used on the event loop only."""

    def __init__(
        self,
        authenticator: Authenticator,
        quotas: CallerQuotas,
        admission: Admission,
        metrics: SecurityMetrics,
    ) -> None:
        self._authenticator, self._quotas, self._admission = authenticator, quotas, admission
        self._metrics = metrics

    @contextmanager
    def call(self, method: str, peer: Peer) -> Iterator[Charge]:
        """Check a call and count it for the duration of the block. Sets `roles.caller` for the current task.

        Yields the `Charge` that counts the call's tokens against its caller's quota. Raises Unauthenticated,
        PermissionDenied, Overloaded or Unavailable.
        """
        who = self.identify(peer)
        with self._counted():
            roles.check_method(who, method)
        with self._admission.call(), self._quotas.call(who) as charge:
            self._metrics.began(who.name)
            yield charge

    @asynccontextmanager
    async def while_accepted(self, method: str, peer: Peer) -> AsyncIterator[None]:
        """End the block with Unauthenticated or PermissionDenied once its caller is accepted no more."""
        try:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(self._look_again(method, peer))
                yield
                looking.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _look_again(self, method: str, peer: Peer) -> None:
        while True:
            await asyncio.sleep(RECHECKED)
            roles.check_method(self.identify(peer), method)

    def identify(self, peer: Peer) -> Caller:
        """Authenticate the caller and set `roles.caller` for the current task. Raises Unauthenticated."""
        who = self._authenticator.caller(peer)
        roles.caller.set(who)
        return who

    def check(self, request: Any) -> None:
        """Raise PermissionDenied where a message asks for more than its caller's roles allow."""
        with self._counted():
            roles.check_request(roles.caller.get(), request)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except PermissionDenied:
            self._metrics.refused("role")
            raise
