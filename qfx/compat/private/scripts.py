"""Steps of TorchScript mode (``quantize_jit``), and its form for devices that calibrate by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qfx.config import QuantType
from qfx.errors import ConfigError
from qfx.jit.compiled import changed, check_keys, check_script, compiled_pass
from qfx.jit.steps import convert, fuse_conv_bn_jit, prepare, script_qconfig_dict


def _check_is_script_module(model: Any) -> None:
    """Refuse what is no script module."""
    check_script(model, "quantize_jit")


def _check_forward_method(model: Any) -> None:
    """Refuse a script module without a forward."""
    check_script(model, "quantize_jit")


def _prepare_jit(
    model: Any, qconfig_dict: Mapping[str, Any], inplace: bool = False, quant_type: QuantType = QuantType.STATIC
) -> Any:
    """`prepare_jit`, or `prepare_dynamic_jit`."""
    return prepare(model, qconfig_dict, inplace, quant_type, "_prepare_jit")


def _convert_jit(
    model: Any,
    inplace: bool = False,
    debug: bool = False,
    quant_type: QuantType = QuantType.STATIC,
    preserved_attrs: list[str] | None = None,
) -> Any:
    """`convert_jit`, or `convert_dynamic_jit`."""
    return convert(model, inplace, debug, quant_type, preserved_attrs, "_convert_jit")


def _quantize_jit(
    model: Any,
    qconfig_dict: Mapping[str, Any],
    run_fn: Callable[..., Any] | None = None,
    run_args: Iterable[Any] | None = None,
    inplace: bool = False,
    debug: bool = False,
    quant_type: QuantType = QuantType.STATIC,
) -> Any:
    """`quantize_jit`, or `quantize_dynamic_jit`.

    Raises:
        ConfigError: static, and nothing calibrates.
    """
    prepared = _prepare_jit(model, qconfig_dict, inplace, quant_type)
    if quant_type != QuantType.DYNAMIC:
        if run_fn is None:
            raise ConfigError("Must provide calibration function for post training static quantization: run_fn")
        run_fn(prepared, *(run_args or ()))
    return _convert_jit(prepared, True, debug, quant_type)


def _prepare_ondevice_jit(
    model: Any,
    qconfig_dict: Mapping[str, Any],
    method_name: str = "forward",
    inplace: bool = False,
    quant_type: QuantType = QuantType.STATIC,
) -> Any:
    """Give a script module a method ``observe_<method>``, which runs its observers; the method itself stays.

    Raises:
        ConfigError: no script module, a key that is no path, or no such method.
    """
    check_script(model, "_prepare_ondevice_jit")
    check_keys(qconfig_dict, "_prepare_ondevice_jit")
    if not model._c._has_method(method_name):
        raise ConfigError(f"this script module has no method {method_name!r}")
    insert = compiled_pass("_jit_pass_insert_observer_method_for_ondevice_ptq")
    compiled = script_qconfig_dict(qconfig_dict)
    model = fuse_conv_bn_jit(model, inplace)
    # The pass looks for layers in the method itself, not in the modules it calls
    compiled_pass("_jit_pass_inline")(model._c._get_method(method_name).graph)
    return changed(model, insert(model._c, method_name, compiled, inplace, int(quant_type)), inplace)


def _prepare_ondevice_dynamic_jit(
    model: Any, qconfig_dict: Mapping[str, Any], method_name: str = "forward", inplace: bool = False
) -> Any:
    """`_prepare_ondevice_jit` for dynamic quantization."""
    return _prepare_ondevice_jit(model, qconfig_dict, method_name, inplace, QuantType.DYNAMIC)


def _convert_ondevice_jit(
    model: Any,
    method_name: str,
    inplace: bool = False,
    debug: bool = False,
    quant_type: QuantType = QuantType.STATIC,
) -> Any:
    """Give a script module that observes a method ``quantize_<method>``, which packs, and ``quantized_<method>``.

    Args:
        model: what `_prepare_ondevice_jit` returned.
        method_name: the method that was prepared, without ``observe_``.
        inplace: change the module, and return it.
        debug: keep quantize, dequantize and the weights readable.
        quant_type: dynamic only, as the compiled pass.

    Raises:
        ConfigError: another kind of quantization, or a method with ``observe_`` before its name.
    """
    check_script(model, "_convert_ondevice_jit")
    if quant_type != QuantType.DYNAMIC:
        raise ConfigError("on-device quantization is dynamic only; give quant_type=QuantType.DYNAMIC")
    if method_name.startswith("observe_"):
        raise ConfigError(f"give the method that was prepared, {method_name.removeprefix('observe_')!r}")
    kind = int(QuantType.DYNAMIC)
    made = compiled_pass("_jit_pass_insert_quant_dequant_for_ondevice_ptq")(
        model._c, f"observe_{method_name}", inplace, debug, kind
    )
    made = compiled_pass("_jit_pass_quant_finalize_for_ondevice_ptq")(made, kind, f"quantize_{method_name}")
    return changed(model, made, inplace)


def _convert_ondevice_dynamic_jit(model: Any, method_name: str, inplace: bool = False, debug: bool = False) -> Any:
    """`_convert_ondevice_jit` for dynamic quantization."""
    return _convert_ondevice_jit(model, method_name, inplace, debug, QuantType.DYNAMIC)


def _quantize_ondevice_dynamic_jit(
    model: Any, qconfig_dict: Mapping[str, Any], method_name: str = "forward", inplace: bool = False
) -> Any:
    """Prepare and convert a method for dynamic quantization on the device.

    Args:
        model: a script module in eval mode.
        qconfig_dict: path of a submodule -> its configuration.
        method_name: the method.
        inplace: change the module, and return it.

    Returns:
        A script module that has, beside the method, ``observe_<method>``, ``quantize_<method>`` and
        ``quantized_<method>``.
    """
    prepared = _prepare_ondevice_dynamic_jit(model, qconfig_dict, method_name, inplace)
    return _convert_ondevice_dynamic_jit(prepared, method_name, inplace)


_quantize_ondevice_dynamic_jit_impl = _quantize_ondevice_dynamic_jit
