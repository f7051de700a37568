"""What a node's inputs are once read: nodes, parameters, literals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from qfx.ops import Op
from qfx.spellings import CallSpelling, ModuleSpelling


@dataclass(eq=False, slots=True)
class Param:
    """A parameter, buffer or constant, whether a module owns it or a ``get_attr`` node fetches it.

    One object per tensor and view: tied weights are one `Param` with several names.

    Attributes:
        fqn: the first qualified name it was found under.
        tensor: its value.
        node: the ``get_attr`` node that fetches it, if one does.
        late: it is itself among the arguments of who reads it, until `qfx.passes.fetch` writes a node for it.
    """

    fqn: str
    tensor: torch.Tensor
    node: Node | None = None
    late: bool = False
    _number: float | int | None = None

    def number(self) -> float | int:
        """What a tensor of one element holds; asked of the tensor once, so it is for constants."""
        if self._number is None:
            self._number = self.tensor.item()
        return self._number

    def __repr__(self) -> str:
        return f"Param({self.fqn})"


@dataclass(eq=False, slots=True)
class Reading:
    """One node, read once: the canonical op, its inputs in the op's order, its attributes in canonical form.

    An absent optional input is None. `spelling` is None for opaque ops, placeholders and outputs.
    """

    node: Node
    op: Op
    inputs: tuple[Any, ...]
    attrs: Mapping[str, Any]
    spelling: CallSpelling | ModuleSpelling | None = None
    mutates: bool = False

    def input(self, name: str) -> Any:
        """The input called `name` (``reading.input("w")``).

        Raises:
            ValueError: the op has no such input.
        """
        return self.inputs[self.op.slot(name)]

    @property
    def dialect(self) -> str:
        """``"module"``, ``"function"``, ``"method"`` or ``"aten"``."""
        if self.node.op == "call_module":
            return "module"
        if self.node.op == "call_method":
            return "method"
        return "aten" if isinstance(self.node.target, torch._ops.OpOverload) else "function"

    def __repr__(self) -> str:
        return f"{self.op.name}@{self.node.name}"
