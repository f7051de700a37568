"""Steps of eager mode (``quantize``)."""

from __future__ import annotations

from typing import Any

from torch import nn

from qfx.eager import propagate_qconfig_
from qfx.eager.custom import _DEFAULT_CUSTOM_CONFIG_DICT as _DEFAULT_CUSTOM_CONFIG_DICT


def _propagate_qconfig_helper(
    module: nn.Module,
    qconfig_dict: dict[Any, Any],
    qconfig_parent: Any = None,
    prefix: str = "",
    prepare_custom_config_dict: dict[str, Any] | None = None,
) -> None:
    """Give a module and what is in it their ``qconfig``; see `propagate_qconfig_`."""
    del prefix
    if qconfig_parent is not None:
        qconfig_dict = {"": qconfig_parent, **qconfig_dict}
    propagate_qconfig_(module, qconfig_dict, prepare_custom_config_dict)
