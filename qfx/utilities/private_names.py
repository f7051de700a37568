"""Private names that code around the original imports from its ``utils``; `qfx.compat` puts them there."""

from __future__ import annotations

from typing import Any

from qfx.utilities.modules import completed_arguments as _normalize_kwargs
from qfx.utilities.modules import default_arguments as _get_default_kwargs
from qfx.utilities.modules import known_arguments as _get_signature_locals
from qfx.utilities.modules import parent_and_name as _parent_name
from qfx.utilities.modules import path_of_module as _get_path_of_module
from qfx.utilities.modules import positional_count as _get_num_pos_args
from qfx.utilities.modules import unique_device as _assert_and_get_unique_device
from qfx.utilities.nodes import FUNCTIONS as func_list
from qfx.utilities.nodes import METHODS as method_list
from qfx.utilities.nodes import MODULES as module_type_list

QuantizerCls = Any
"""A handler of patterns, as a type; the original stopped saying which."""

__all__ = [
    "QuantizerCls",
    "_assert_and_get_unique_device",
    "_get_default_kwargs",
    "_get_num_pos_args",
    "_get_path_of_module",
    "_get_signature_locals",
    "_normalize_kwargs",
    "_parent_name",
    "func_list",
    "method_list",
    "module_type_list",
]
