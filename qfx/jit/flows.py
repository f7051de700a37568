"""Whole flows in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qfx.config import QConfig
from qfx.errors import ConfigError
from qfx.jit.steps import convert_dynamic_jit, convert_jit, prepare_dynamic_jit, prepare_jit


def quantize_jit(
    model: Any,
    qconfig_dict: Mapping[str, QConfig | None],
    run_fn: Callable[..., Any],
    run_args: Iterable[Any],
    inplace: bool = False,
    debug: bool = False,
) -> Any:
    """Prepare a script module, calibrate it, convert it.

    Args:
        model: a script module in eval mode.
        qconfig_dict: see `prepare_jit`.
        run_fn: calibrates: ``run_fn(prepared, *run_args)``.
        run_args: its further arguments.
        inplace: change the module, and return it.
        debug: see `convert_jit`.

    Returns:
        A quantized script module.

    Raises:
        ConfigError: nothing to calibrate with.

    Example:
        >>> quantize_jit(script, {"": qfx.get_default_qconfig("x86")}, calibrate, [data])  # doctest: +SKIP
    """
    for role, given in (("function", run_fn), ("dataset", run_args)):
        if given is None:
            raise ConfigError(f"Must provide calibration {role} for post training static quantization")
    prepared = prepare_jit(model, qconfig_dict, inplace)
    run_fn(prepared, *run_args)
    return convert_jit(prepared, True, debug)


def quantize_dynamic_jit(
    model: Any, qconfig_dict: Mapping[str, QConfig | None], inplace: bool = False, debug: bool = False
) -> Any:
    """Quantize a script module whose activations get their scale when it runs.

    Args:
        model: a script module in eval mode.
        qconfig_dict: see `prepare_jit`; `qfx.default_dynamic_qconfig` and the like.
        inplace: change the module, and return it.
        debug: see `convert_jit`.

    Example:
        >>> quantize_dynamic_jit(script, {"": qfx.default_dynamic_qconfig})  # doctest: +SKIP
    """
    return convert_dynamic_jit(prepare_dynamic_jit(model, qconfig_dict, inplace), True, debug)
