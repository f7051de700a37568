"""Going through all submodules, many times for each model that is prepared and converted."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn


def modules_in(root: nn.Module, *, aliases: bool = False) -> Iterator[tuple[str, nn.Module]]:
    """``root.named_modules()``, in its order and with its names, at a third of the price.

    Args:
        root: the module to start at; it comes first, called ``""``.
        aliases: give a module that stands in several places once for each of them.
    """
    stack: list[tuple[str, nn.Module]] = [("", root)]
    met: set[int] = set()
    while stack:
        path, module = stack.pop()
        if not aliases:
            if id(module) in met:
                continue
            met.add(id(module))
        yield path, module
        children = module._modules
        if children:
            prefix = f"{path}." if path else ""
            stack.extend((prefix + name, each) for name, each in reversed(children.items()) if each is not None)


def each_module(root: nn.Module) -> list[nn.Module]:
    """``root.modules()``, in no particular order: without the names, which cost most."""
    found = {id(root): root}
    stack = [root]
    while stack:
        for child in stack.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                stack.append(child)
    return list(found.values())


def all_on_cpu(root: nn.Module) -> bool:
    """Whether every parameter and buffer is on the CPU."""
    for module in each_module(root):
        for table in (module._parameters, module._buffers):
            for tensor in table.values():
                if tensor is not None and not tensor.is_cpu:
                    return False
    return True


def tensors_in(root: nn.Module) -> Iterator[torch.Tensor]:
    """Every parameter and buffer, as often as it is met."""
    for module in each_module(root):
        for table in (module._parameters, module._buffers):
            yield from (tensor for tensor in table.values() if tensor is not None)
