"""Where a node came from: its original name, module path and source line, as plain data in ``node.meta``."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.fx import GraphModule, Node

from qfx.frames import GENERATED

KEY = "qfx_origins"
LINE_KEY = "qfx_line"
# Files between the user and us: a recorded stack trace has no module names.
_FRAMEWORK_FILES = (
    GENERATED,
    f"{Path(torch.__file__).parent}{os.sep}",
    f"{Path(__file__).parents[1]}{os.sep}",
    str(contextlib.__file__),
)
_FRAME = re.compile(r'^\s*File "(.+)", line (\d+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Origin:
    """One node of the user's graph.

    Attributes:
        name: the node's name at capture.
        target: how it was spelled there.
        module_path: the submodule it ran in (``layer3.0``), empty at the top.
        line: ``file:line`` of the user's source, or empty where the capture did not tell.
    """

    name: str
    target: str
    module_path: str
    line: str

    def __hash__(self) -> int:
        return hash(self.name)  # asked for by the thousand, and names tell nearly all apart

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.line, self.module_path) if part)
        return f"{self.name} ({where})" if where else self.name


def stamp(gm: GraphModule) -> None:
    """Give every node of a fresh capture itself as its origin."""
    for node in gm.graph.nodes:
        if KEY not in node.meta:
            node.meta[KEY] = (Origin(node.name, spelled(node), module_path(node), line_of(node)),)


def origins(node: Node) -> tuple[Origin, ...]:
    """The user's nodes that `node` stands for."""
    found: tuple[Origin, ...] = node.meta.get(KEY, ())
    return found


def merged(nodes: Iterable[Node]) -> tuple[Origin, ...]:
    """The origins of several nodes, once each, in order."""
    return tuple(dict.fromkeys(origin for node in nodes for origin in origins(node)))


def describe(node: Node) -> str:
    """A node for a message: its name, the user's source line, the module path."""
    found = origins(node)
    if not found:
        return node.name
    where = ", ".join(part for part in (found[0].line, found[0].module_path) if part)
    return f"{node.name} ({where})" if where else node.name


def spelled(node: Node) -> str:
    """The target as a user would write it."""
    target = node.target
    if isinstance(target, str):
        return f".{target}()" if node.op == "call_method" else target
    return (
        str(target)
        if not hasattr(target, "__name__")
        else f"{getattr(target, '__module__', '')}.{target.__name__}".lstrip(".")
    )


def module_path(node: Node) -> str:
    """Qualified name of the submodule a node ran in, or that it calls."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    last = list(stack.values())[-1]
    return str(last[0] if isinstance(last, tuple) else last)


def line_of(node: Node) -> str:
    """The user's source line: ours when we traced, else from the stack trace the capture recorded.

    Of a stack trace it is the innermost frame that is neither torch's nor ours (the user's call of a module, not the
    line in torch that computes it); empty where there is none.
    """
    line = node.meta.get(LINE_KEY)
    if line:
        return str(line)
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    return next((f"{path}:{at}" for path, at in reversed(frames) if not path.startswith(_FRAMEWORK_FILES)), "")
