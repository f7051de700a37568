"""Writing a canonical call back as a concrete one: arguments of functions, clones of modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from qfx.ops import Op
from qfx.spellings import CallSpelling, ModuleSpelling
from qfx.spellings.spelling import MISSING


def call_arguments(
    spelling: CallSpelling, op: Op, inputs: Sequence[Any], attrs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """args and kwargs of a call: inputs by position where they lead, what differs from the default by keyword."""
    values = dict(zip(op.names, inputs, strict=False)) | dict(attrs)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    leading = True
    for parameter in spelling.signature.parameters:
        name = parameter.canonical
        value = values.pop(name, MISSING)
        is_input = name in op.names[: len(op.inputs)]
        if value is MISSING:
            leading = False
        elif leading and (is_input or parameter.default is MISSING):
            args.append(list(value) if isinstance(value, tuple) and not is_input else value)
        else:
            leading = False
            attr = op.attrs.get(name)
            default = op.normalize(name, parameter.default) if attr is not None else parameter.default
            if value != default and not (value is None and is_input):
                kwargs[parameter.python] = list(value) if isinstance(value, tuple) else value
    while args and args[-1] is None:
        args.pop()
    if spelling.signature.star is not None and spelling.signature.star in values:
        args.extend(values[spelling.signature.star])
    return tuple(args), kwargs


def module_like(
    module: nn.Module, spelling: ModuleSpelling, tensors: Mapping[str, Any], attrs: Mapping[str, Any]
) -> nn.Module:
    """A shallow copy of `module` with other parameters and attributes; the original is not touched.

    Args:
        module: what to copy.
        spelling: which attributes of it are which canonical names.
        tensors: canonical input -> new parameter, `Param` (kept as it is) or None.
        attrs: canonical attribute -> value.
    """
    clone = module.__new__(type(module))
    clone.__dict__.update(module.__dict__)
    for table in ("_parameters", "_buffers", "_modules"):
        clone.__dict__[table] = dict(module.__dict__[table])
    for attribute, canonical in spelling.params.items():
        if canonical in tensors:
            value = tensors[canonical]
            tensor = getattr(value, "tensor", value)
            if tensor is not None and attribute in clone._parameters and not isinstance(tensor, nn.Parameter):
                tensor = nn.Parameter(tensor.detach(), requires_grad=_trains(module))
            (clone._buffers if attribute in clone._buffers else clone._parameters)[attribute] = tensor
    for attribute, canonical in spelling.attrs.items():
        if canonical in attrs and attribute != "training":
            setattr(clone, attribute, attrs[canonical])
    return clone


def _trains(module: nn.Module) -> bool:
    return any(isinstance(p, torch.Tensor) and p.requires_grad for p in module._parameters.values() if p is not None)
