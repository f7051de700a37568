"""Classes that held what a backend config says of a pattern (``fx.quantize_handler``, ``fx.fuse_handler``).

The engine compiles a backend config's patterns and needs no handlers. They are kept as what users made of them: a type
to check for, and the facts of a pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from qfx.config import BackendConfig, ObservationType


def _default_root_node_getter(node_pattern: Any) -> Any:
    """The node called first in a matched pattern in the reversed nested format."""
    while not hasattr(node_pattern, "op"):
        node_pattern = node_pattern[-1]
    return node_pattern


class QuantizeHandler:
    """What is to be known of a matched pattern.

    Args:
        node_pattern: the matched nodes, in the reversed nested format.
        modules: the modules of the graph, by path.
        root_node_getter: finds the node with the weight; by default the first that is called.
        is_custom_module, is_standalone_module: whether it is one.
    """

    observation_type: ObservationType | None = ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT
    dtype_configs: tuple[Any, ...] = ()

    def __init__(
        self,
        node_pattern: Any,
        modules: Mapping[str, nn.Module],
        root_node_getter: Callable[[Any], Any] | None = None,
        is_custom_module: bool = False,
        is_standalone_module: bool = False,
    ) -> None:
        self.node_pattern, self.modules = node_pattern, modules
        self.root_node = (root_node_getter or _default_root_node_getter)(node_pattern)
        self.is_custom_module_, self.is_standalone_module_ = is_custom_module, is_standalone_module

    def is_general_tensor_value_op(self) -> bool:
        """Whether the result has the parameters of the input."""
        return False

    def is_custom_module(self) -> bool:
        """Whether it is a custom module."""
        return self.is_custom_module_

    def is_standalone_module(self) -> bool:
        """Whether it is a standalone module."""
        return self.is_standalone_module_


def _get_quantize_handler_cls(
    observation_type: ObservationType, dtype_configs: list[Any], num_tensor_args_to_observation_type: dict[int, Any]
) -> type[QuantizeHandler]:
    """A handler class with these facts."""

    class ConfigurableQuantizeHandler(QuantizeHandler):
        """The facts of one pattern of a backend config."""

        def __init__(self, node_pattern: Any, modules: Mapping[str, nn.Module], *args: Any, **kwargs: Any) -> None:
            super().__init__(node_pattern, modules, *args, **kwargs)
            self.observation_type = observation_type
            self.dtype_configs = tuple(dtype_configs)
            if num_tensor_args_to_observation_type:
                tensors = sum(hasattr(arg, "op") for arg in self.root_node.args)
                self.observation_type = num_tensor_args_to_observation_type[tensors]

        def is_general_tensor_value_op(self) -> bool:
            return self.observation_type is ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT

    return ConfigurableQuantizeHandler


def _get_pattern_to_quantize_handlers(backend_config: BackendConfig) -> dict[Any, type[QuantizeHandler]]:
    """A handler class for each pattern of a backend config, by the pattern in the reversed nested format."""
    return {
        config.nested_pattern: _get_quantize_handler_cls(
            config.observation_type, config.dtype_configs, config._num_tensor_args_to_observation_type
        )
        for config in backend_config.configs
    }


class BinaryOpQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class CatQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class ConvReluQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class LinearReLUQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class BatchNormQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class EmbeddingQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class RNNDynamicQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class DefaultNodeQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class FixedQParamsOpQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class CopyNodeQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class GeneralTensorShapeOpQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class CustomModuleQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class StandaloneModuleQuantizeHandler(QuantizeHandler):
    """A kind of handler of before there were backend configs."""


class FuseHandler:
    """What fuses a matched pattern.

    Args:
        node: the last node of the match.
    """

    def __init__(self, node: Any) -> None:
        self.node = node


class DefaultFuseHandler(FuseHandler):
    """The handler of a pattern with a fuser method."""


def _get_fusion_pattern_to_fuse_handler_cls(backend_config: BackendConfig) -> dict[Any, type[FuseHandler]]:
    """The handler class of each pattern with a fuser method."""
    return {c.nested_pattern: DefaultFuseHandler for c in backend_config.configs if c.fuser_method is not None}
