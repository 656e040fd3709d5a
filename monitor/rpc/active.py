"""The policy set in force, and those that requests still finish on.

Lives on the event loop. Knows who uses which set. Does not know where policies come from or what they decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from monitor.model.engine.requests import Lease
from monitor.records import Digests
from monitor.rpc.seams import PolicySet
from monitor.rpc.wire import responses
from monitor.telemetry.metrics.activations import ActivationMeter
from monitor.v1 import monitor_pb2 as pb


@dataclass
class InForce:
    """A policy set with everything that answers made under it carry."""

    policies: PolicySet
    digests: Digests
    meter: ActivationMeter
    lease: Lease
    """Holds the columns that its rules read and its clamps, until the last request on it has ended."""
    users: int = 0
    said: pb.Digests = field(init=False)
    listed: pb.ListPoliciesResponse = field(init=False)

    def __post_init__(self) -> None:
        """Write down what is said again and again."""
        self.said = responses.digests(self.digests)
        ordered = sorted(self.policies.policies, key=lambda policy: policy.name)
        self.listed = pb.ListPoliciesResponse(
            policies=[responses.policy(policy) for policy in ordered], digests=self.said
        )


class Active:
    """Which set new requests begin on."""

    def __init__(self, first: InForce, retired: Callable[[InForce], None] = lambda _: None) -> None:
        self._now = first
        self._retired = retired

    @property
    def now(self) -> InForce:
        """The set in force at this moment."""
        return self._now

    @contextmanager
    def using(self) -> Iterator[InForce]:
        """The set in force, for a whole request: it stays usable until the request has ended."""
        held = self._now
        held.users += 1
        try:
            yield held
        finally:
            held.users -= 1
            self._let_go(held)

    def swap(self, new: InForce) -> None:
        """New requests begin on another set from now on."""
        old, self._now = self._now, new
        self._let_go(old)

    def _let_go(self, held: InForce) -> None:
        if held is not self._now and held.users == 0:
            held.lease.release()
            self._retired(held)
