"""Where quantized values cross the edges of a graph: its inputs and outputs, and modules quantized on their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch.fx import Node

from qfx.errors import ConfigError
from qfx.graph.provenance import describe
from qfx.passes.pipeline import Context
from qfx.passes.tuples import Path, at


@dataclass(slots=True)
class Interface:
    """What crosses, by node.

    Attributes:
        given: nodes whose value is quantized already: inputs of the model, results of such modules.
        takes: node -> where the inputs it wants quantized are, as paths into its arguments; of the output node,
            into the results.
        parts: module -> the tensors of the tuple it returns, which are quantized when the module is.
        watched: modules that want the observer of their result, which is quantized.
        qconfigs: node -> what observes the inputs it wants quantized.
        standalone: paths of modules that were prepared on their own.
    """

    given: set[Node] = field(default_factory=set)
    takes: dict[Node, tuple[Path, ...]] = field(default_factory=dict)
    parts: dict[Node, tuple[Node, ...]] = field(default_factory=dict)
    watched: set[Node] = field(default_factory=set)
    qconfigs: dict[Node, Any] = field(default_factory=dict)
    standalone: list[str] = field(default_factory=list)

    def inputs(self, node: Node) -> list[Node]:
        """The values a node wants quantized.

        Raises:
            ConfigError: there is no such input or output.
        """
        values = results(node) if node.op == "output" else list(node.args)
        found = []
        for path in self.takes.get(node, ()):
            value = at(values, path)
            if not isinstance(value, Node):
                what = "output" if node.op == "output" else f"input of {describe(node)}"
                raise ConfigError(
                    f"there is no {what} number {path[0]} to be quantized; it has {len(values)}, counted from 0"
                )
            found.append(value)
        return found

    def plan(self) -> dict[str, Any]:
        """The same as plain data, by name."""
        return {
            "given": sorted(node.name for node in self.given),
            "takes": {node.name: list(paths) for node, paths in self.takes.items()},
            "parts": {node.name: [part.name for part in parts] for node, parts in self.parts.items()},
            "standalone": list(self.standalone),
            "watched": sorted(node.name for node in self.watched),
        }


def results(output: Node) -> list[Any]:
    """The values a graph returns, one or several."""
    returned: Any = output.args[0]
    return list(returned) if isinstance(returned, list | tuple) else [returned]


def placeholders(nodes: Iterable[Node], indexes: list[int]) -> list[Node]:
    """The inputs of a graph with these positions.

    Raises:
        ConfigError: there is no such input.
    """
    inputs = [node for node in nodes if node.op == "placeholder"]
    wrong = [index for index in indexes if index >= len(inputs)]
    if wrong:
        raise ConfigError(
            f"input_quantized_indexes names input {wrong[0]}; the model has {len(inputs)}, counted from 0"
        )
    return [inputs[index] for index in indexes]


def open_up(context: Context, plan: dict[str, Any]) -> None:
    """Let quantized values in: those that are given are dequantized before they are read.

    Args:
        context: the graph under conversion, its observers still in it.
        plan: what `Interface.plan` gave.
    """
    g, view = context.rewriter, context.view
    for node in list(g.gm.graph.nodes):
        if node.name not in plan["given"]:
            continue
        readers = list(node.users)
        after = node
        while node.op == "placeholder" and after.next.op == "placeholder":
            after = after.next
        with g.at(after.next, (node,)):
            back = g.method("dequantize", node)
        for reader in readers:
            reader.replace_input_with(node, back)
            view.forget(reader)


def hand_out(context: Context, plan: dict[str, Any]) -> None:
    """Let quantized values out: whoever wants one reads it before it is dequantized.

    Args:
        context: the reference graph.
        plan: what `Interface.plan` gave.

    Raises:
        ConfigError: the value is not quantized after all.
    """
    view = context.view
    for node in list(context.rewriter.gm.graph.nodes):
        values = results(node) if node.op == "output" else list(node.args)
        wanted = {at(values, path): path for path in reversed(plan["takes"].get(node.name, ()))}
        for back, path in wanted.items():
            if not isinstance(back, Node) or view.read(back).op.name != "dequantize":
                raise ConfigError(
                    f"{describe(node)} wants its value {path[0]} quantized, and {back} is not: what makes it stays "
                    "float; configure that operator, or leave the index out"
                )
            source: Any = back.args[0]
            node.replace_input_with(back, source)
            view.forget(node)
            context.rewriter.erase_if_unused(back)
