"""Names that code around the original imports from its ``quantize``, ``fuse_modules`` and mapping modules beside the
public ones; `qfx.compat` puts them there."""

from __future__ import annotations

from qfx.eager.convert import replace_children as _convert
from qfx.eager.fuse import fuse as _fuse_modules
from qfx.eager.fuse import fuse_list as _fuse_modules_helper
from qfx.eager.fuse import get_module as _get_module
from qfx.eager.fuse import set_module as _set_module
from qfx.eager.fusers import DEFAULT_FUSER_METHODS as _DEFAULT_OP_LIST_TO_FUSER_METHOD
from qfx.eager.fusers import rows_for as _get_valid_patterns
from qfx.eager.hooks import observe_input as _observer_forward_pre_hook
from qfx.eager.hooks import observe_output as _observer_forward_hook
from qfx.eager.hooks import register_observer_hook as _register_activation_post_process_hook
from qfx.eager.mappings import CONTAINERS as _INCLUDE_QCONFIG_PROPAGATE_LIST
from qfx.eager.mappings import has_known_range as _has_special_act_post_process
from qfx.eager.mappings import known_range as _get_special_act_post_process
from qfx.eager.observe import add_observers_ as _add_observer_
from qfx.eager.observe import observers_by_name as _get_observer_dict
from qfx.eager.observe import remove_observer as _remove_activation_post_process
from qfx.eager.observe import remove_qconfig as _remove_qconfig
from qfx.eager.places import devices_of as _get_unique_devices_
from qfx.eager.places import devices_of as get_unique_devices_
from qfx.fake_quantize.recognize import is_activation_post_process
from qfx.nn.intrinsic.fusers import pair as _sequential_wrapper2

__all__ = [
    "_DEFAULT_OP_LIST_TO_FUSER_METHOD",
    "_INCLUDE_QCONFIG_PROPAGATE_LIST",
    "_add_observer_",
    "_convert",
    "_fuse_modules",
    "_fuse_modules_helper",
    "_get_module",
    "_get_observer_dict",
    "_get_special_act_post_process",
    "_get_unique_devices_",
    "_get_valid_patterns",
    "_has_special_act_post_process",
    "_observer_forward_hook",
    "_observer_forward_pre_hook",
    "_register_activation_post_process_hook",
    "_remove_activation_post_process",
    "_remove_qconfig",
    "_sequential_wrapper2",
    "_set_module",
    "get_unique_devices_",
    "is_activation_post_process",
]
