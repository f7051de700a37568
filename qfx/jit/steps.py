"""The steps: fuse, prepare, convert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from qfx.config import QConfig, QuantType
from qfx.jit.compiled import changed, check_keys, check_script, compiled_pass


def script_qconfig(qconfig: QConfig) -> QConfig:
    """The observers of a configuration, made and compiled: what the passes take.

    Args:
        qconfig: factories of observers that TorchScript can compile; all of qfx's can be.

    Returns:
        A ``QConfig`` of compiled modules.
    """
    return QConfig(
        activation=torch.jit.script(qconfig.activation())._c,
        weight=torch.jit.script(qconfig.weight())._c,
    )


def script_qconfig_dict(qconfig_dict: Mapping[str, QConfig | None]) -> dict[str, QConfig | None]:
    """`script_qconfig` of every value; None (leave it float) stays."""
    return {name: script_qconfig(qconfig) if qconfig else None for name, qconfig in qconfig_dict.items()}


def fuse_conv_bn_jit(model: Any, inplace: bool = False) -> Any:
    """Fold the batch norms behind convolutions of a script module in eval mode.

    Args:
        model: a script module.
        inplace: change it, and return it.

    Returns:
        The module with folded weights.

    Raises:
        ConfigError: it is no script module.
        KernelError: this build of PyTorch lacks the pass.

    Example:
        >>> fused = fuse_conv_bn_jit(torch.jit.script(model.eval()))  # doctest: +SKIP
    """
    check_script(model, "fuse_conv_bn_jit")
    made = compiled_pass("_jit_pass_fold_convbn")(model._c)
    return changed(model, made, inplace)


def prepare(model: Any, qconfig_dict: Mapping[str, Any], inplace: bool, kind: QuantType, caller: str) -> Any:
    """Fold batch norms and insert compiled observers."""
    check_script(model, caller)
    check_keys(qconfig_dict, caller)
    insert = compiled_pass("_jit_pass_insert_observers")
    compiled = script_qconfig_dict(qconfig_dict)
    model = fuse_conv_bn_jit(model, inplace)
    return changed(model, insert(model._c, "forward", compiled, inplace, int(kind)), inplace)


def prepare_jit(model: Any, qconfig_dict: Mapping[str, QConfig | None], inplace: bool = False) -> Any:
    """Insert observers into a script module, for post-training quantization.

    Args:
        model: a script module in eval mode.
        qconfig_dict: path of a submodule -> its configuration; ``""`` is the whole model, None leaves a part float.
        inplace: change the module, and return it.

    Returns:
        A script module; run it on calibration data, then call `convert_jit`.

    Raises:
        ConfigError: no script module, or a key that is no path.
        KernelError: this build of PyTorch lacks the passes.

    Example:
        >>> script = torch.jit.script(model.eval())  # doctest: +SKIP
        >>> prepared = prepare_jit(script, {"": qfx.get_default_qconfig("x86")})  # doctest: +SKIP
    """
    return prepare(model, qconfig_dict, inplace, QuantType.STATIC, "prepare_jit")


def prepare_dynamic_jit(model: Any, qconfig_dict: Mapping[str, QConfig | None], inplace: bool = False) -> Any:
    """Insert observers of weights into a script module, for dynamic quantization; see `prepare_jit`."""
    return prepare(model, qconfig_dict, inplace, QuantType.DYNAMIC, "prepare_dynamic_jit")


def convert(
    model: Any, inplace: bool, debug: bool, kind: QuantType, preserved_attrs: list[str] | None, caller: str
) -> Any:
    """Replace observers by quantize and dequantize; fuse these into kernels unless `debug`."""
    check_script(model, caller)
    model.eval()
    made = compiled_pass("_jit_pass_insert_quant_dequant")(model._c, "forward", inplace, debug, int(kind))
    if not debug:
        if any(state.device.type != "cpu" for state in (*model.parameters(), *model.buffers())):
            model.cpu()  # the kernels are there only
        made = compiled_pass("_jit_pass_quant_finalize")(made, int(kind), preserved_attrs or [])
    result = changed(model, made, inplace)
    compiled_pass("_jit_pass_constant_propagation")(result.graph)
    compiled_pass("_jit_pass_dce")(result.graph)
    return result


def convert_jit(
    model: Any, inplace: bool = False, debug: bool = False, preserved_attrs: list[str] | None = None
) -> Any:
    """Convert a calibrated script module to quantized kernels.

    Args:
        model: what `prepare_jit` returned, after calibration.
        inplace: change the module, and return it.
        debug: keep quantize, dequantize and the weights readable, instead of fused kernels and packed weights.
        preserved_attrs: attributes that stay, though nothing in forward reads them.

    Returns:
        A script module.

    Raises:
        ConfigError: no script module.
        KernelError: this build of PyTorch lacks the passes.
    """
    return convert(model, inplace, debug, QuantType.STATIC, preserved_attrs, "convert_jit")


def convert_dynamic_jit(
    model: Any, inplace: bool = False, debug: bool = False, preserved_attrs: list[str] | None = None
) -> Any:
    """Convert what `prepare_dynamic_jit` returned; see `convert_jit`."""
    return convert(model, inplace, debug, QuantType.DYNAMIC, preserved_attrs, "convert_dynamic_jit")
