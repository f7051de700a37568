"""Moves of data that lie in no integer region: these stay float.

The default backend has patterns for them only so that they do not break a region (`qfx.config.backend_config.moves`).
Between floats, quantizing ``x[0]`` would cost accuracy and save nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import Node

from qfx.config.backend_config.moves import MOVES
from qfx.graph import GraphView
from qfx.passes.annotate.inputs import activations
from qfx.passes.annotate.instances import Found, Instance, Left
from qfx.passes.interface import Interface

_WHY = "it only moves values, and neither what it takes nor what it gives is quantized"


def leave_idle_moves(view: GraphView, found: Found, crossing: Interface) -> None:
    """Take moves, and chains of them, that no quantized op feeds or reads out of the instances."""
    moves = {id(each): each for each in found.of.values() if each.backend_pattern.config.pattern in MOVES}
    busy = [each for each in moves.values() if _touches(view, found, crossing, each, moves)]
    needed = {id(each) for each in busy}
    while busy:
        for node in _around(view, busy.pop()):
            neighbour = found.of.get(node)
            if neighbour is not None and id(neighbour) in moves and id(neighbour) not in needed:
                needed.add(id(neighbour))
                busy.append(neighbour)
    for number, move in moves.items():
        if number not in needed:
            for node in move.nodes:
                del found.of[node]
                found.left[node.name] = Left(_WHY)


def _touches(view: GraphView, found: Found, crossing: Interface, move: Instance, moves: dict[int, Instance]) -> bool:
    """Whether something quantized that is no move stands next to one."""
    for node in _around(view, move):
        neighbour = found.of.get(node)
        if node in crossing.given or node in crossing.takes or (neighbour is not None and id(neighbour) not in moves):
            return True
    return False


def _around(view: GraphView, move: Instance) -> Iterator[Node]:
    """The values a move takes, and the nodes that read what it gives."""
    yield from (value for _, value in activations(view, move.root, move.roles) if isinstance(value, Node))
    yield from move.anchor.users
