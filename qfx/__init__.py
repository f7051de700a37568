"""Quantization of PyTorch models on one small graph engine.

Example:
    >>> import torch, qfx
    >>> from qfx import ops
    >>> @qfx.pattern
    ... def double_relu(x):
    ...     return ops.relu(ops.relu(x))
    >>> @qfx.rule(double_relu)
    ... def one_relu(m, g):
    ...     return g.call(ops.relu, m.x)
    >>> gm = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU()))
    >>> len(qfx.rewrite(gm, [one_relu]).graph.nodes)
    3
"""

from __future__ import annotations

from types import ModuleType as _ModuleType

from qfx.api.convert import convert_fx as convert_fx
from qfx.api.convert import convert_to_reference_fx as convert_to_reference_fx
from qfx.api.fuse import fuse_fx as fuse_fx
from qfx.api.modules import FusedGraphModule as FusedGraphModule
from qfx.api.modules import ObservedGraphModule as ObservedGraphModule
from qfx.api.modules import ObservedStandaloneGraphModule as ObservedStandaloneGraphModule
from qfx.api.modules import QuantizedGraphModule as QuantizedGraphModule
from qfx.api.prepare import prepare_fx as prepare_fx
from qfx.api.prepare import prepare_qat_fx as prepare_qat_fx
from qfx.config import BackendConfig as BackendConfig
from qfx.config import BackendPatternConfig as BackendPatternConfig
from qfx.config import ConvertCustomConfig as ConvertCustomConfig
from qfx.config import DTypeConfig as DTypeConfig
from qfx.config import DTypeWithConstraints as DTypeWithConstraints
from qfx.config import FuseCustomConfig as FuseCustomConfig
from qfx.config import MatchAllNode as MatchAllNode
from qfx.config import NodePattern as NodePattern
from qfx.config import ObservationType as ObservationType
from qfx.config import Pattern as Pattern
from qfx.config import PrepareCustomConfig as PrepareCustomConfig
from qfx.config import QConfig as QConfig
from qfx.config import QConfigAny as QConfigAny
from qfx.config import QConfigDynamic as QConfigDynamic
from qfx.config import QConfigMapping as QConfigMapping
from qfx.config import QuantType as QuantType
from qfx.config import StandaloneModuleConfigEntry as StandaloneModuleConfigEntry
from qfx.config import default_activation_only_qconfig as default_activation_only_qconfig
from qfx.config import default_debug_qconfig as default_debug_qconfig
from qfx.config import default_dynamic_qat_qconfig as default_dynamic_qat_qconfig
from qfx.config import default_dynamic_qconfig as default_dynamic_qconfig
from qfx.config import default_embedding_qat_qconfig as default_embedding_qat_qconfig
from qfx.config import default_embedding_qat_qconfig_4bit as default_embedding_qat_qconfig_4bit
from qfx.config import default_per_channel_qconfig as default_per_channel_qconfig
from qfx.config import (
    default_per_channel_symmetric_qnnpack_qat_qconfig as default_per_channel_symmetric_qnnpack_qat_qconfig,
)
from qfx.config import default_per_channel_symmetric_qnnpack_qconfig as default_per_channel_symmetric_qnnpack_qconfig
from qfx.config import default_qat_qconfig as default_qat_qconfig
from qfx.config import default_qat_qconfig_v2 as default_qat_qconfig_v2
from qfx.config import default_qconfig as default_qconfig
from qfx.config import default_quint8_weight_qconfig as default_quint8_weight_qconfig
from qfx.config import default_reuse_input_qconfig as default_reuse_input_qconfig
from qfx.config import default_symmetric_qnnpack_qat_qconfig as default_symmetric_qnnpack_qat_qconfig
from qfx.config import default_symmetric_qnnpack_qconfig as default_symmetric_qnnpack_qconfig
from qfx.config import default_weight_only_qconfig as default_weight_only_qconfig
from qfx.config import float16_dynamic_qconfig as float16_dynamic_qconfig
from qfx.config import float16_static_qconfig as float16_static_qconfig
from qfx.config import float_qparams_weight_only_qconfig as float_qparams_weight_only_qconfig
from qfx.config import float_qparams_weight_only_qconfig_4bit as float_qparams_weight_only_qconfig_4bit
from qfx.config import get_combined_dict as get_combined_dict
from qfx.config import get_default_backend_config as get_default_backend_config
from qfx.config import get_default_qat_qconfig as get_default_qat_qconfig
from qfx.config import get_default_qat_qconfig_dict as get_default_qat_qconfig_dict
from qfx.config import get_default_qat_qconfig_mapping as get_default_qat_qconfig_mapping
from qfx.config import get_default_qconfig as get_default_qconfig
from qfx.config import get_default_qconfig_dict as get_default_qconfig_dict
from qfx.config import get_default_qconfig_mapping as get_default_qconfig_mapping
from qfx.config import get_executorch_backend_config as get_executorch_backend_config
from qfx.config import get_fbgemm_backend_config as get_fbgemm_backend_config
from qfx.config import get_native_backend_config as get_native_backend_config
from qfx.config import get_native_backend_config_dict as get_native_backend_config_dict
from qfx.config import get_onednn_backend_config as get_onednn_backend_config
from qfx.config import get_qnnpack_backend_config as get_qnnpack_backend_config
from qfx.config import get_tensorrt_backend_config as get_tensorrt_backend_config
from qfx.config import get_tensorrt_backend_config_dict as get_tensorrt_backend_config_dict
from qfx.config import get_x86_backend_config as get_x86_backend_config
from qfx.config import per_channel_dynamic_qconfig as per_channel_dynamic_qconfig
from qfx.config import qconfig_equals as qconfig_equals
from qfx.eager import *  # noqa: F403  (listed in qfx.eager.__all__)
from qfx.exported import allow_exported_model_train_eval as allow_exported_model_train_eval
from qfx.exported import generate_numeric_debug_handle as generate_numeric_debug_handle
from qfx.exported import move_exported_model_to_eval as move_exported_model_to_eval
from qfx.exported import move_exported_model_to_train as move_exported_model_to_train
from qfx.fake_quantize import *  # noqa: F403  (listed in qfx.fake_quantize.__all__)
from qfx.fake_quantize import _DerivedObserverOrFakeQuantize as _DerivedObserverOrFakeQuantize
from qfx.jit import convert_dynamic_jit as convert_dynamic_jit
from qfx.jit import convert_jit as convert_jit
from qfx.jit import fuse_conv_bn_jit as fuse_conv_bn_jit
from qfx.jit import prepare_dynamic_jit as prepare_dynamic_jit
from qfx.jit import prepare_jit as prepare_jit
from qfx.jit import quantize_dynamic_jit as quantize_dynamic_jit
from qfx.jit import quantize_jit as quantize_jit
from qfx.jit import script_qconfig as script_qconfig
from qfx.jit import script_qconfig_dict as script_qconfig_dict
from qfx.observers import *  # noqa: F403  (the public observers, listed in qfx.observers.__all__)
from qfx.passes import FunctionPass as FunctionPass
from qfx.passes import Pass as Pass
from qfx.passes import Pipeline as Pipeline
from qfx.passes import Rewriter as Rewriter
from qfx.passes import owned as owned
from qfx.passes import rewrite as rewrite
from qfx.passes import rule as rule
from qfx.patterns import any_of as any_of
from qfx.patterns import const as const
from qfx.patterns import maybe as maybe
from qfx.patterns import pattern as pattern
from qfx.reject import Reject as Reject
from qfx.report import explain as explain
from qfx.report import summary as summary
from qfx.tracer import QuantizationTracer as QuantizationTracer
from qfx.tracing import trace as trace
from qfx.utilities import *  # noqa: F403  (the helpers, listed in qfx.utilities.__all__)

# Submodules are left out, so that ``from qfx import *`` does not rebind somebody's ``nn`` or ``ops``.
__all__ = [
    *(
        n
        for n, v in globals().items()
        if not n.startswith("_") and n != "annotations" and not isinstance(v, _ModuleType)
    ),
    "_DerivedObserverOrFakeQuantize",
]
