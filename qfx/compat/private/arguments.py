"""What the arguments of a node stand for, and what follows it (``fx.utils``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node

from qfx.compat.private.backends import get_pattern_to_input_type_to_index
from qfx.compat.private.nodes import NodeInfo, get_custom_module_class_keys, return_arg_list
from qfx.config import DTypeWithConstraints, PrepareCustomConfig
from qfx.config.backend_config import DTypeConfig, get_native_backend_config, why_unsupported
from qfx.config.qconfig import QConfigAny
from qfx.nn import quantizable
from qfx.utilities import activation_is_statically_quantized
from qfx.utilities.modules import unique_device

NON_QUANTIZABLE_WEIGHT_OPS = {F.layer_norm, F.group_norm, F.instance_norm}
assert_and_get_unique_device = unique_device
EMPTY_ARG_DICT: dict[Any, Callable[[Node], list[int]]] = {}


def node_arg_is_weight(node: Node, arg: Any) -> bool:
    """Whether an argument is the weight of a function."""
    return _is(node, arg, "weight")


def node_arg_is_bias(node: Node, arg: Any) -> bool:
    """Whether an argument is the bias of a function."""
    return _is(node, arg, "bias")


def _is(node: Node, arg: Any, role: str) -> bool:
    if not isinstance(node, Node) or node.op != "call_function" or not isinstance(arg, Node):
        return False
    position = get_pattern_to_input_type_to_index(get_native_backend_config()).get(node.target, {}).get(role)
    if position is None:
        return False
    return (position < len(node.args) and node.args[position] is arg) or node.kwargs.get(role) is arg


def all_node_args_except_first(node: Node) -> list[int]:
    """The positions of all arguments but the first."""
    return list(range(1, len(node.args)))


# Arguments that are numbers or masks, by their type: nobody observes them.
NON_OBSERVABLE_ARG_DICT: dict[NodeInfo, dict[Any, Callable[[Node], list[int]]]] = {
    NodeInfo("call_method", "masked_fill"): {torch.bool: return_arg_list([1]), float: return_arg_list([2])},
    **{
        NodeInfo("call_method", target): {int: all_node_args_except_first}
        for target in ("permute", "repeat", "reshape", "transpose", torch.transpose, "view")
    },
    **{
        NodeInfo("call_method", target): {int: return_arg_list([1])}
        for target in ("size", "unsqueeze", "unsqueeze_", torch.unsqueeze)
    },
}


def get_non_observable_arg_indexes_and_types(node: Node) -> dict[Any, Callable[[Node], list[int]]]:
    """Type -> what gives the positions of the arguments of that type that nobody observes."""
    return NON_OBSERVABLE_ARG_DICT.get(NodeInfo(node.op, node.target), EMPTY_ARG_DICT)


def maybe_get_next_module(
    node: Node,
    modules: dict[str, nn.Module],
    target_module_type: type[nn.Module] | None = None,
    target_functional_type: Any = None,
) -> Node | None:
    """The first reader of a node that calls a module of a class, or a function; None if none does."""

    def is_it(user: Node) -> bool:
        if user.op == "call_module":
            return target_module_type is not None and isinstance(modules.get(str(user.target)), target_module_type)
        return (
            user.op == "call_function" and target_functional_type is not None and user.target == target_functional_type
        )

    return next(filter(is_it, node.users), None)


def get_skipped_module_name_and_classes(
    prepare_custom_config: PrepareCustomConfig, is_standalone_module: bool
) -> tuple[list[str], list[type]]:
    """Paths and classes of the modules tracing keeps whole; a standalone module's own config has no standalone ones."""
    custom = prepare_custom_config
    names, classes = [*custom.non_traceable_module_names], [*custom.non_traceable_module_classes]
    if not is_standalone_module:
        names += custom.standalone_module_names
        classes += custom.standalone_module_classes
        classes += get_custom_module_class_keys(custom.float_to_observed_mapping)
    return names, classes


def _is_custom_module_lstm(
    node: Node, named_modules: dict[str, nn.Module], qconfig: QConfigAny = None, qhandler: Any = None
) -> bool:
    """Whether a node calls an LSTM that is a custom module.

    That is its observed form; or, given both a configuration and a handler, the float one that is about to become it.
    """
    return _is_custom(nn.LSTM, quantizable.LSTM, node, named_modules, qconfig, qhandler)


def _is_custom_module_mha(
    node: Node, named_modules: dict[str, nn.Module], qconfig: QConfigAny = None, qhandler: Any = None
) -> bool:
    """`_is_custom_module_lstm` for multi-head attention."""
    return _is_custom(nn.MultiheadAttention, quantizable.MultiheadAttention, node, named_modules, qconfig, qhandler)


def _is_custom(
    in_float: type, observed: type, node: Node, modules: dict[str, nn.Module], qconfig: QConfigAny, handler: Any
) -> bool:
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if qconfig is None or handler is None:
        return isinstance(module, observed)
    return (
        isinstance(module, in_float)
        and activation_is_statically_quantized(qconfig)
        and bool(handler.is_custom_module())
    )


def _qconfig_satisfies_dtype_config_constraints(
    qconfig: QConfigAny, dtype_with_constraints: DTypeWithConstraints, is_activation: bool = True
) -> bool:
    """Whether the observer of activations, or of the weight, keeps to the codes and scales a backend allows."""
    if qconfig is None:
        return True
    if is_activation:
        config = DTypeConfig(input_dtype=dtype_with_constraints)
    else:
        config = DTypeConfig(weight_dtype=dtype_with_constraints)
    reason = why_unsupported(qconfig, config, has_weight=not is_activation)
    return reason is None or not reason.startswith("input" if is_activation else "weight")
