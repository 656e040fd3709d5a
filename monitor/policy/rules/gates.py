"""Combinations of conditions, for all rules at once: layers of gates, each "at least so many of these hold".

`all` needs every input, `any` needs one, and `not` inverts one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.schema.expression import AnyExpression, NotOf, needed, parts_of

Bools = NDArray[np.bool_]
Signed = tuple[int, bool]
"""A node, and whether it counts turned around."""


@dataclass(frozen=True)
class _Gate:
    inputs: tuple[Signed, ...]
    need: int
    depth: int


@dataclass(frozen=True)
class _Layer:
    """Gates that depend on earlier layers only, as flat arrays."""

    nodes: NDArray[np.intp]
    inputs: NDArray[np.intp]
    turned: Bools
    starts: NDArray[np.intp]
    need: NDArray[np.intp]


class Gates:
    """Nodes 0 to `leaves` − 1 are conditions; gates come after them, each after those that it needs."""

    def __init__(self, leaves: int) -> None:
        self._leaves = leaves
        self._gates: list[_Gate] = []
        self._outputs: list[Signed] = []
        self._layers: list[_Layer] = []

    def add(self, expression: AnyExpression, names: Mapping[str, Signed]) -> Signed:
        """The node of an expression; `names` gives those of conditions."""
        if isinstance(expression, str):
            return names[expression]
        inputs = tuple(self.add(part, names) for part in parts_of(expression))
        if isinstance(expression, NotOf):
            return inputs[0][0], not inputs[0][1]
        depth = 1 + max(self._depth(node) for node, _ in inputs)
        self._gates.append(_Gate(inputs, needed(expression), depth))
        return self._leaves + len(self._gates) - 1, False

    def output(self, node: Signed) -> None:
        """Say what the next rule rests on."""
        self._outputs.append(node)

    def close(self) -> Gates:
        """Lay the gates out; nothing can be added afterwards."""
        for depth in sorted({gate.depth for gate in self._gates}):
            mine = [i for i, gate in enumerate(self._gates) if gate.depth == depth]
            inputs = [signed for i in mine for signed in self._gates[i].inputs]
            counts = [len(self._gates[i].inputs) for i in mine]
            self._layers.append(
                _Layer(
                    nodes=np.asarray(mine, np.intp) + self._leaves,
                    inputs=np.asarray([node for node, _ in inputs], np.intp),
                    turned=np.asarray([turned for _, turned in inputs], bool),
                    starts=np.asarray([0, *np.cumsum(counts)[:-1]], np.intp),
                    need=np.asarray([self._gates[i].need for i in mine], np.intp),
                )
            )
        return self

    def evaluate(self, leaves: Bools) -> Bools:
        """Which rules hold `[rows, rules]`, given which conditions do `[rows, leaves]`."""
        nodes = np.zeros((len(leaves), self._leaves + len(self._gates)), bool)
        nodes[:, : self._leaves] = leaves
        for layer in self._layers:
            parts = nodes[:, layer.inputs] ^ layer.turned
            nodes[:, layer.nodes] = np.add.reduceat(parts, layer.starts, axis=1, dtype=np.intp) >= layer.need
        outputs = np.asarray([node for node, _ in self._outputs], np.intp)
        return np.asarray(nodes[:, outputs] ^ np.asarray([turned for _, turned in self._outputs], bool))

    def margins(self, leaves: Sequence[float]) -> list[float]:
        """How far each rule is beyond its threshold, given how far each condition is: `all` takes the least of its
        parts, `any` the greatest, `at_least` n the n-th greatest, `not` the opposite.
        """
        values = list(leaves)
        for gate in self._gates:
            parts = sorted((_signed(values, node) for node in gate.inputs), reverse=True)
            values.append(parts[gate.need - 1])
        return [_signed(values, node) for node in self._outputs]

    def _depth(self, node: int) -> int:
        return 0 if node < self._leaves else self._gates[node - self._leaves].depth


def _signed(values: Sequence[float], node: Signed) -> float:
    return -values[node[0]] if node[1] else values[node[0]]
