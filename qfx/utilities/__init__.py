"""Small questions about configurations, ranges, modules and nodes: the helpers of the original's ``utils``."""

from __future__ import annotations

from qfx.config.backend_config import MatchAllNode, NodePattern, Pattern
from qfx.config.dicts import get_combined_dict
from qfx.dtypes import is_per_channel, is_per_tensor
from qfx.utilities.modules import (
    get_fqn_to_example_inputs,
    getattr_from_fqn,
    has_no_children_ignoring_parametrizations,
)
from qfx.utilities.nodes import check_node
from qfx.utilities.qconfigs import (
    activation_dtype,
    activation_is_dynamically_quantized,
    activation_is_int8_quantized,
    activation_is_int32_quantized,
    activation_is_statically_quantized,
    get_qconfig_dtypes,
    get_quant_type,
    get_swapped_custom_module_class,
    op_is_int8_dynamically_quantized,
    weight_dtype,
    weight_is_quantized,
    weight_is_statically_quantized,
)
from qfx.utilities.ranges import (
    calculate_qmin_qmax,
    check_min_max_valid,
    determine_qparams,
    get_qparam_dict,
    to_underlying_dtype,
    validate_qmin_qmax,
)

DEPRECATION_WARNING = (
    "torch.ao.quantization is deprecated and is being removed from PyTorch. qfx has the same names and runs the same "
    "scripts: import qfx instead, or call qfx.compat.install() first."
)
"""What to tell callers of the original; qfx itself warns of nothing."""

__all__ = [
    "DEPRECATION_WARNING",
    "MatchAllNode",
    "NodePattern",
    "Pattern",
    "activation_dtype",
    "activation_is_dynamically_quantized",
    "activation_is_int8_quantized",
    "activation_is_int32_quantized",
    "activation_is_statically_quantized",
    "calculate_qmin_qmax",
    "check_min_max_valid",
    "check_node",
    "determine_qparams",
    "get_combined_dict",
    "get_fqn_to_example_inputs",
    "get_qconfig_dtypes",
    "get_qparam_dict",
    "get_quant_type",
    "get_swapped_custom_module_class",
    "getattr_from_fqn",
    "has_no_children_ignoring_parametrizations",
    "is_per_channel",
    "is_per_tensor",
    "op_is_int8_dynamically_quantized",
    "to_underlying_dtype",
    "validate_qmin_qmax",
    "weight_dtype",
    "weight_is_quantized",
    "weight_is_statically_quantized",
]
