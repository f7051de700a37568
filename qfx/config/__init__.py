"""What users say about quantization: which observers, for which layers, on which backend. Knows nothing of graphs."""

from __future__ import annotations

from qfx.config.backend_config import (
    BackendConfig,
    BackendPatternConfig,
    DTypeConfig,
    DTypeWithConstraints,
    MatchAllNode,
    NodePattern,
    ObservationType,
    Pattern,
    first_supported,
    get_default_backend_config,
    get_fbgemm_backend_config,
    get_native_backend_config,
    get_native_backend_config_dict,
    get_onednn_backend_config,
    get_qnnpack_backend_config,
    get_x86_backend_config,
    why_unsupported,
)
from qfx.config.custom_config import (
    ConvertCustomConfig,
    FuseCustomConfig,
    PrepareCustomConfig,
    StandaloneModuleConfigEntry,
)
from qfx.config.default_mappings import (
    get_default_qat_qconfig_dict,
    get_default_qat_qconfig_mapping,
    get_default_qconfig_dict,
    get_default_qconfig_mapping,
)
from qfx.config.default_qconfigs import (
    default_debug_qconfig,
    default_per_channel_qconfig,
    default_per_channel_symmetric_qnnpack_qconfig,
    default_qconfig,
    default_quint8_weight_qconfig,
    default_reuse_input_qconfig,
    default_symmetric_qnnpack_qconfig,
    float16_static_qconfig,
    get_default_qconfig,
)
from qfx.config.dicts import get_combined_dict
from qfx.config.dynamic_pair import QConfigDynamic
from qfx.config.dynamic_qconfigs import (
    default_dynamic_qconfig,
    float16_dynamic_qconfig,
    float_qparams_weight_only_qconfig,
    float_qparams_weight_only_qconfig_4bit,
    per_channel_dynamic_qconfig,
)
from qfx.config.fixed_range import FIXED_RANGE_OBSERVERS
from qfx.config.names import public_name
from qfx.config.observer_facts import ObserverFacts, observer_facts
from qfx.config.qat_qconfigs import (
    default_activation_only_qconfig,
    default_dynamic_qat_qconfig,
    default_embedding_qat_qconfig,
    default_embedding_qat_qconfig_4bit,
    default_per_channel_symmetric_qnnpack_qat_qconfig,
    default_qat_qconfig,
    default_qat_qconfig_v2,
    default_symmetric_qnnpack_qat_qconfig,
    default_weight_only_qconfig,
    get_default_qat_qconfig,
)
from qfx.config.qconfig import QConfig, QConfigAny, qconfig_equals, reuses_input
from qfx.config.qconfig_mapping import QConfigMapping
from qfx.config.quant_type import QuantType
from qfx.config.resolve import Entry, Resolved, entries, resolve, unused_entries

__all__ = [
    "FIXED_RANGE_OBSERVERS",
    "BackendConfig",
    "BackendPatternConfig",
    "ConvertCustomConfig",
    "DTypeConfig",
    "DTypeWithConstraints",
    "Entry",
    "FuseCustomConfig",
    "MatchAllNode",
    "NodePattern",
    "ObservationType",
    "ObserverFacts",
    "Pattern",
    "PrepareCustomConfig",
    "QConfig",
    "QConfigAny",
    "QConfigDynamic",
    "QConfigMapping",
    "QuantType",
    "Resolved",
    "StandaloneModuleConfigEntry",
    "default_activation_only_qconfig",
    "default_debug_qconfig",
    "default_dynamic_qat_qconfig",
    "default_dynamic_qconfig",
    "default_embedding_qat_qconfig",
    "default_embedding_qat_qconfig_4bit",
    "default_per_channel_qconfig",
    "default_per_channel_symmetric_qnnpack_qat_qconfig",
    "default_per_channel_symmetric_qnnpack_qconfig",
    "default_qat_qconfig",
    "default_qat_qconfig_v2",
    "default_qconfig",
    "default_quint8_weight_qconfig",
    "default_reuse_input_qconfig",
    "default_symmetric_qnnpack_qat_qconfig",
    "default_symmetric_qnnpack_qconfig",
    "default_weight_only_qconfig",
    "entries",
    "first_supported",
    "float16_dynamic_qconfig",
    "float16_static_qconfig",
    "float_qparams_weight_only_qconfig",
    "float_qparams_weight_only_qconfig_4bit",
    "get_combined_dict",
    "get_default_backend_config",
    "get_default_qat_qconfig",
    "get_default_qat_qconfig_dict",
    "get_default_qat_qconfig_mapping",
    "get_default_qconfig",
    "get_default_qconfig_dict",
    "get_default_qconfig_mapping",
    "get_fbgemm_backend_config",
    "get_native_backend_config",
    "get_native_backend_config_dict",
    "get_onednn_backend_config",
    "get_qnnpack_backend_config",
    "get_x86_backend_config",
    "observer_facts",
    "per_channel_dynamic_qconfig",
    "public_name",
    "qconfig_equals",
    "resolve",
    "reuses_input",
    "unused_entries",
    "why_unsupported",
]
