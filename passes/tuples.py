"""Modules that take and give tuples of quantized tensors: LSTMs and attention, quantized as a whole."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from qfx.nn import quantizable
from qfx.passes.pipeline import Context

Path = tuple[Any, ...]
Shape = None | tuple["Shape", ...]
"""What a value is: None for a tensor, else a tuple of shapes."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """What such a module takes and gives.

    Attributes:
        takes: names and shapes of the arguments that are quantized, in the order of its forward.
        gives: the shape of its result.
    """

    takes: tuple[tuple[str, Shape], ...]
    gives: Shape


_PAIR = (None, None)
_KNOWN: tuple[tuple[type[nn.Module], Crossing], ...] = (
    (quantizable.LSTM, Crossing((("input", None), ("hx", _PAIR)), (None, _PAIR))),
    (quantizable.MultiheadAttention, Crossing((("query", None), ("key", None), ("value", None)), _PAIR)),
)


def crossing_of(module: nn.Module) -> Crossing | None:
    """What an observed module takes and gives, if that is more than a tensor."""
    return next((crossing for kind, crossing in _KNOWN if isinstance(module, kind)), None)


def at(values: Any, path: Path) -> Any:
    """The value at a path into nested tuples and dictionaries; None where there is none."""
    for index in path:
        if (isinstance(values, dict) and index in values) or (isinstance(values, list | tuple) and index < len(values)):
            values = values[index]
        else:
            return None
    return values


def leaves(path: Path, value: Any) -> list[Path]:
    """Where the values of the graph are in a value at a path; the path itself where there is no structure."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return [path]
    return [leaf for key, each in items for leaf in leaves((*path, key), each)]


def open_tuples(context: Context, node: Node, crossing: Crossing) -> tuple[list[Path], list[Node]]:
    """Make every tensor of the tuples a module takes and gives a value of the graph.

    Args:
        context: the graph.
        node: calls the module.
        crossing: of the module.

    Returns:
        Where in ``node.args`` the tensors it takes are, and the nodes of the tensors it gives that somebody reads.
    """
    _take_apart(context, node, crossing)
    leaves: list[Node] = []
    _give_apart(context, node, crossing.gives, leaves)
    given = [path for index, (_, shape) in enumerate(crossing.takes) for path in _paths(shape, (index,))]
    return [path for path in given if at(node.args, path) is not None], [leaf for leaf in leaves if not leaf._erased]


def _paths(shape: Shape, start: Path) -> Iterator[Path]:
    if shape is None:
        yield start
        return
    for index, part in enumerate(shape):
        yield from _paths(part, (*start, index))


def _take_apart(context: Context, node: Node, crossing: Crossing) -> None:
    """Write what the module takes by position, tuples as tuples of their tensors."""
    kwargs, args = dict(node.kwargs), list(node.args)
    for name, _ in crossing.takes[len(args) :]:
        if name not in kwargs:
            break
        args.append(kwargs.pop(name))
    for index, (_, shape) in enumerate(crossing.takes[: len(args)]):
        args[index] = _parts(context, node, args[index], shape)
    node.args, node.kwargs = tuple(args), kwargs
    context.view.forget(node)


def _parts(context: Context, reader: Node, value: Any, shape: Shape) -> Any:
    if shape is None or value is None:
        return value
    if isinstance(value, list | tuple):
        return tuple(_parts(context, reader, part, inner) for part, inner in zip(value, shape, strict=True))
    if isinstance(value, Node) and value.target is tuple:  # ours
        return _parts(context, reader, value.args[0], shape)
    with context.rewriter.at(reader):
        items = [context.rewriter.call(operator.getitem, value, index) for index in range(len(shape))]
    return tuple(_parts(context, reader, item, inner) for item, inner in zip(items, shape, strict=True))


def _give_apart(context: Context, source: Node, shape: Shape, leaves: list[Node]) -> None:
    """Have the readers of a tuple read its tensors: its items, and where it is read as a whole a tuple of them."""
    if shape is None:
        leaves.append(source)
        return
    g, readers, items = context.rewriter, list(source.users), list[Node]()
    for index in range(len(shape)):
        with g.at((items or [source])[-1].next, (source,)):
            items.append(g.call(operator.getitem, source, index))
    others = [reader for reader in readers if not _reads_an_item(context, reader, source, items)]
    if others:
        with g.at(items[-1].next, (source,)):
            whole = g.call(tuple, list(items))
        for reader in others:
            reader.replace_input_with(source, whole)
            context.view.forget(reader)
    for item, inner in zip(items, shape, strict=True):
        _give_apart(context, item, inner, leaves)
    for item in items:
        g.erase_if_unused(item)


def _reads_an_item(context: Context, reader: Node, source: Node, items: list[Node]) -> bool:
    index = reader.args[1] if reader.target is operator.getitem and reader.args[0] is source else None
    if not isinstance(index, int):
        return False
    context.rewriter.replace(reader, items[index])
    return True
