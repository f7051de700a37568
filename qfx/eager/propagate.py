"""A configuration for every module: its own, or what it inherits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from qfx.config.qconfig_checks import assert_valid_qconfig, on_device_of
from qfx.eager.places import at
from qfx.errors import ConfigError
from qfx.frames import warn


def propagate_qconfig_(
    module: nn.Module,
    qconfig_dict: Mapping[Any, Any] | None = None,
    prepare_custom_config_dict: Mapping[str, Any] | None = None,
) -> None:
    """Give every module of a model an attribute ``qconfig``, in place.

    The most particular one wins: an attribute ``qconfig`` the module has already, the entry for its path, the entry
    for its class, what its parent has. None leaves it float.

    Args:
        module: the model.
        qconfig_dict: configurations by path (``""`` is the model itself) or class. None by default.
        prepare_custom_config_dict: modules named in its ``non_traceable_module_name`` (by path) or
            ``non_traceable_module_class`` inherit nothing, and neither does anything in them. None by default.

    Raises:
        ConfigError: a transposed convolution is to have a weight scale per channel, or a ``qconfig`` is no QConfig; a
            note names the module's path.

    Example:
        >>> from qfx.config import default_qconfig
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> propagate_qconfig_(model, {"": default_qconfig, "1": None})
        >>> model[0].qconfig is default_qconfig, model[1].qconfig
        (True, None)
    """
    table, custom = qconfig_dict or {}, prepare_custom_config_dict or {}
    closed = (set(custom.get("non_traceable_module_name", ())), set(custom.get("non_traceable_module_class", ())))
    paths = _propagate(module, "", None, table, closed)
    unknown = [name for name in table if isinstance(name, str) and name not in paths]
    if unknown:
        warn(f"qconfig_dict names {', '.join(map(repr, unknown))}, which the model does not have")


def _propagate(
    module: nn.Module, path: str, inherited: Any, table: Mapping[Any, Any], closed: tuple[set[str], set[Any]]
) -> set[str]:
    qconfig = table.get(path, table.get(type_before_parametrizations(module), inherited))
    qconfig = getattr(module, "qconfig", qconfig)
    with at(path, module):
        if qconfig is not None and not (hasattr(qconfig, "activation") and hasattr(qconfig, "weight")):
            raise ConfigError(
                f"the qconfig of this {type(module).__name__} is {qconfig!r}; it has to be a QConfig, such as "
                "get_default_qconfig(), or None"
            )
        assert_valid_qconfig(qconfig, module)
    module.qconfig = qconfig = _placed(qconfig, module)
    paths = {path}
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if child_path not in closed[0] and type(child) not in closed[1]:
            paths |= _propagate(child, child_path, qconfig, table, closed)
    return paths


def _placed(qconfig: Any, module: nn.Module) -> Any:
    """A configuration that makes observers where the module is.

    On the CPU that is what any does; leaving it alone there lets prepared models be pickled and keeps ``is``.
    """
    tensor = next(iter((*module.parameters(), *module.buffers())), None)
    return qconfig if tensor is None or tensor.device.type == "cpu" else on_device_of(qconfig, module)
