"""Names with an underscore that code around the original imports from its observer and fake-quantize modules.

Each is another name of something public here; `qfx.compat` puts them where the original has them.
"""

from __future__ import annotations

from qfx.dtypes import has_float_zero_point as _is_float_qparams
from qfx.dtypes import is_per_channel as _is_per_channel
from qfx.dtypes import is_per_tensor as _is_per_tensor
from qfx.dtypes import is_symmetric as _is_symmetric_quant
from qfx.fake_quantize.recognize import is_activation_post_process as _is_activation_post_process
from qfx.fake_quantize.recognize import is_fake_quant_script_module as _is_fake_quant_script_module
from qfx.fake_quantize.recognize import is_observer_script_module as _is_observer_script_module
from qfx.fake_quantize.recognize import is_per_channel_script_obs_instance as _is_per_channel_script_obs_instance
from qfx.observers.base import UniformQuantizationObserverBase as _ObserverBase
from qfx.observers.factory import ObserverFactory as _PartialWrapper
from qfx.observers.factory import with_args as _with_args
from qfx.observers.factory import with_callable_args as _with_callable_args

__all__ = [
    "_ObserverBase",
    "_PartialWrapper",
    "_is_activation_post_process",
    "_is_fake_quant_script_module",
    "_is_float_qparams",
    "_is_observer_script_module",
    "_is_per_channel",
    "_is_per_channel_script_obs_instance",
    "_is_per_tensor",
    "_is_symmetric_quant",
    "_with_args",
    "_with_callable_args",
]
