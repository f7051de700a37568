"""BackendConfig: which patterns of operators a backend can quantize, and in which dtypes."""

from __future__ import annotations

from qfx.config.backend_config.backend_config import BackendConfig
from qfx.config.backend_config.check import first_supported, why_unsupported
from qfx.config.backend_config.dtype_config import DTypeConfig, DTypeWithConstraints
from qfx.config.backend_config.elsewhere import (
    get_executorch_backend_config,
    get_tensorrt_backend_config,
    get_tensorrt_backend_config_dict,
)
from qfx.config.backend_config.engines import (
    get_fbgemm_backend_config,
    get_native_backend_config,
    get_native_backend_config_dict,
    get_onednn_backend_config,
    get_qnnpack_backend_config,
    get_test_only_legacy_native_backend_config,
    get_test_only_legacy_native_backend_config_dict,
    get_x86_backend_config,
)
from qfx.config.backend_config.moves import get_default_backend_config
from qfx.config.backend_config.observation_type import ObservationType
from qfx.config.backend_config.pattern_config import BackendPatternConfig, MatchAllNode, NodePattern, Pattern

__all__ = [
    "BackendConfig",
    "BackendPatternConfig",
    "DTypeConfig",
    "DTypeWithConstraints",
    "MatchAllNode",
    "NodePattern",
    "ObservationType",
    "Pattern",
    "first_supported",
    "get_default_backend_config",
    "get_executorch_backend_config",
    "get_fbgemm_backend_config",
    "get_native_backend_config",
    "get_native_backend_config_dict",
    "get_onednn_backend_config",
    "get_qnnpack_backend_config",
    "get_tensorrt_backend_config",
    "get_tensorrt_backend_config_dict",
    "get_test_only_legacy_native_backend_config",
    "get_test_only_legacy_native_backend_config_dict",
    "get_x86_backend_config",
    "why_unsupported",
]
