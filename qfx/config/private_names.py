"""Names with an underscore that code around the original imports from its ``qconfig`` and ``qconfig_mapping``.

Each is another name of something that lives where its concept does; `qfx.compat` puts them where the original has them.
"""

from __future__ import annotations

from qfx.config.default_mappings import (
    default_mapping as _get_default_qconfig_mapping,
)
from qfx.config.default_mappings import (
    mapping_with_default as _get_default_qconfig_mapping_with_default_qconfig,
)
from qfx.config.default_mappings import (
    symmetric_qnnpack_mapping as _get_symmetric_qnnpack_qconfig_mapping,
)
from qfx.config.default_mappings import (
    symmetric_qnnpack_qat_mapping as _get_symmetric_qnnpack_qat_qconfig_mapping,
)
from qfx.config.default_qconfigs import (
    fp32_placeholder_qconfig as _default_fp32_placeholder_qconfig,
)
from qfx.config.default_qconfigs import (
    quint8_placeholder_qconfig as _default_quint8_placeholder_qconfig,
)
from qfx.config.fixed_range import FIXED_RANGE_OBSERVERS as _FIXED_QPARAMS_OP_TO_OBSERVER
from qfx.config.qconfig import factories_equal as _obs_or_fq_ctr_equals
from qfx.config.qconfig import factories_equal as _partial_wrapper_equals
from qfx.config.qconfig import reuses_input as _is_reuse_input_qconfig
from qfx.config.qconfig_checks import activation_is_memoryless as _activation_is_memoryless
from qfx.config.qconfig_checks import assert_valid_qconfig as _assert_valid_qconfig
from qfx.config.qconfig_checks import on_device_of as _add_module_to_qconfig_obs_ctr
from qfx.config.qconfig_mapping import GLOBAL_KEY as _GLOBAL_DICT_KEY
from qfx.config.qconfig_mapping import MODULE_NAME_KEY as _MODULE_NAME_DICT_KEY
from qfx.config.qconfig_mapping import MODULE_NAME_OBJECT_TYPE_ORDER_KEY as _MODULE_NAME_OBJECT_TYPE_ORDER_DICT_KEY
from qfx.config.qconfig_mapping import MODULE_NAME_REGEX_KEY as _MODULE_NAME_REGEX_DICT_KEY
from qfx.config.qconfig_mapping import OBJECT_TYPE_KEY as _OBJECT_TYPE_DICT_KEY
from qfx.config.qconfig_mapping import QConfigMapping

_QCONFIG_STYLE_ORDER: list[str] = list(vars(QConfigMapping()))
"""The attributes of a mapping, from the most general entries to the most specific."""

__all__ = [
    "_FIXED_QPARAMS_OP_TO_OBSERVER",
    "_GLOBAL_DICT_KEY",
    "_MODULE_NAME_DICT_KEY",
    "_MODULE_NAME_OBJECT_TYPE_ORDER_DICT_KEY",
    "_MODULE_NAME_REGEX_DICT_KEY",
    "_OBJECT_TYPE_DICT_KEY",
    "_QCONFIG_STYLE_ORDER",
    "_activation_is_memoryless",
    "_add_module_to_qconfig_obs_ctr",
    "_assert_valid_qconfig",
    "_default_fp32_placeholder_qconfig",
    "_default_quint8_placeholder_qconfig",
    "_get_default_qconfig_mapping",
    "_get_default_qconfig_mapping_with_default_qconfig",
    "_get_symmetric_qnnpack_qat_qconfig_mapping",
    "_get_symmetric_qnnpack_qconfig_mapping",
    "_is_reuse_input_qconfig",
    "_obs_or_fq_ctr_equals",
    "_partial_wrapper_equals",
]
