"""PyTorch's quantized kernels that have no weight, as objects; those with one are in `qfx.kernels.weighted`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from qfx.kernels import codes, reference
from qfx.kernels.kernel import Kernel, KernelSite, fixed_output, one_of

_Q = torch.ops.quantized
_SIGMOID, _TANH = reference.SIGMOID_OUT.scalars(), reference.TANH_OUT.scalars()


def _plain_elu(site: KernelSite) -> str | None:
    plain = site.attrs["scale"] == site.attrs["input_scale"] == 1.0
    return None if plain else "the kernel of elu has no scale besides alpha"


def _whole_norm(site: KernelSite) -> str | None:
    return f"the kernel of batch norm needs {', '.join(site.missing)}" if site.missing else None


def _own_statistics(site: KernelSite) -> str | None:
    own = site.attrs["use_input_stats"] is True
    return None if own else "the kernel of instance norm takes the statistics of its input, not running ones"


def _whole(site: KernelSite) -> str | None:
    return None if site.rank is None or site.rank > 2 else "the kernel of instance norm takes batches, not samples"


def _number_bounds(site: KernelSite) -> str | None:
    named = (site.attrs[name] for name in ("min", "max", "min_val", "max_val") if name in site.attrs)
    numbers = all(bound is None or isinstance(bound, int | float) for bound in named)
    return None if numbers else f"the kernel of {site.op} takes bounds that are numbers"


def _line(x: Any, scale: Any, zero_point: Any, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    size, factor = (v[0] if isinstance(v, tuple | list) else v for v in (attrs["size"], attrs["scale_factor"]))
    return (x, size, None if factor is None else float(factor), attrs["mode"], attrs["align_corners"])


def _not_in_one_dimension(site: KernelSite) -> bool:
    return site.attrs["mode"] != "linear" and site.rank != 3


def _no_3d_reflection(site: KernelSite) -> str | None:
    three = site.rank == 5 and site.attrs["mode"] == "reflect"
    return "no quantized kernel pads by 'reflect' in three dimensions" if three else None


def _known_windows(site: KernelSite) -> str | None:
    known = isinstance(site.attrs["output_size"], tuple)
    return None if known else f"the kernel of {site.op} takes an output_size that is not computed"


def _elu(x: Any, scale: Any, zero_point: Any, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    return (x, scale, zero_point, attrs["alpha"])


def _leaky_relu(x: Any, scale: Any, zero_point: Any, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    return (x, attrs["negative_slope"], False, scale, zero_point)


def _same(op: str, computes: Any, *limits: Any) -> Kernel:
    return Kernel(op, f"quantized {op}", None, computes, limits)


# -- what must not be left to the engine ---------------------------------------------------------------------------
_Attrs = Mapping[str, Any]
_AVERAGE = ("ceil_mode", "count_include_pad", "divisor_override")


def _clamp(op: str, bounds: Callable[[_Attrs], tuple[float | None, float | None]]) -> Kernel:
    def arrange(x: Any, scale: Any, zero_point: Any, attrs: _Attrs) -> tuple[Any, ...]:
        return (x, *bounds(attrs))

    return Kernel(op, f"quantized {op}", codes.clamp, reference.clamp, (_number_bounds,), arrange=arrange)


def _pool(op: str, call: Any, computes: Any, names: tuple[str, ...], own_call: Callable[[KernelSite], bool]) -> Kernel:
    def arrange(x: Any, scale: Any, zero_point: Any, attrs: _Attrs) -> tuple[Any, ...]:
        window = attrs["kernel_size"], attrs["stride"] or attrs["kernel_size"], attrs["padding"]
        return (x, *(list(v) if isinstance(v, tuple) else v for v in (*window, *(attrs[name] for name in names))))

    return Kernel(op, f"quantized {op}", call, computes, arrange=arrange, own_call=own_call)


def _roll(x: Any, scale: Any, zero_point: Any, attrs: _Attrs) -> tuple[Any, ...]:
    return (x, *(list(v) if isinstance(v, tuple) else [v] for v in (attrs["shifts"], attrs["dims"])))


def _adaptive(x: Any, scale: Any, zero_point: Any, attrs: _Attrs) -> tuple[Any, ...]:
    return (x, codes.kept_sizes(attrs["output_size"]))


def _some(values: Any, least: int) -> bool:
    """Whether an attribute of a pool is not everywhere below a number; one that is computed may be anything."""
    return not isinstance(values, tuple) or any(not isinstance(value, int) or value >= least for value in values)


def _plain_max(site: KernelSite) -> bool:
    attrs = site.attrs
    window, padding = attrs["kernel_size"], attrs["padding"]
    if isinstance(window, tuple) and len(window) == 3:
        return False
    return _some(window, 2) and not (_some(padding, 1) and _some(attrs["dilation"], 2))


def _plain_avg(site: KernelSite) -> bool:
    attrs = site.attrs
    counts_all = attrs["count_include_pad"] is True or not _some(attrs["padding"], 1)
    return _some(attrs["kernel_size"], 2) and attrs["divisor_override"] is None and counts_all


_OWN_RANGE = (
    Kernel("add", "quantized.add", _Q.add, reference.add, with_relu=_Q.add_relu),
    Kernel("mul", "quantized.mul", _Q.mul, reference.mul, with_relu=_Q.mul_relu),
    Kernel("sigmoid", "quantized.sigmoid", _Q.sigmoid, reference.sigmoid, (fixed_output(*_SIGMOID),)),
    Kernel("tanh", "quantized tanh", None, reference.tanh, (fixed_output(*_TANH),)),
    Kernel("hardsigmoid", "quantized hardsigmoid", None, reference.hardsigmoid, (fixed_output(*_SIGMOID),)),
    Kernel("hardswish", "quantized.hardswish", _Q.hardswish, reference.hardswish),
    Kernel("elu", "quantized.elu", _Q.elu, reference.elu, (_plain_elu,), arrange=_elu),
    Kernel("leaky_relu", "quantized.leaky_relu", _Q.leaky_relu, reference.leaky_relu, arrange=_leaky_relu),
    Kernel("batch_norm", "quantized.batch_norm", _Q.batch_norm, reference.batch_norm, (_whole_norm,)),
    Kernel("layer_norm", "quantized.layer_norm", _Q.layer_norm, reference.layer_norm),
    Kernel(
        "instance_norm", "quantized.instance_norm", _Q.instance_norm, reference.instance_norm, (_own_statistics, _whole)
    ),
    Kernel("prelu", "prelu of codes", codes.prelu, reference.prelu),
    Kernel("cat", "quantized.cat", _Q.cat, reference.cat),
)
_INPUTS_RANGE = (
    _same("relu", reference.relu),
    _clamp("relu6", lambda attrs: (0.0, 6.0)),
    _clamp("hardtanh", lambda attrs: (attrs["min_val"], attrs["max_val"])),
    _clamp("clamp", lambda attrs: (attrs["min"], attrs["max"])),
    *(
        _pool(f"max_pool{n}d", codes.max_pool, reference.max_pool, ("dilation", "ceil_mode"), _plain_max)
        for n in (1, 2, 3)
    ),
    *(_pool(f"avg_pool{n}d", codes.avg_pool, reference.avg_pool, _AVERAGE, _plain_avg) for n in (1, 2)),
    _same("avg_pool3d", reference.avg_pool),
    *(_same(f"adaptive_avg_pool{n}d", reference.adaptive_avg_pool) for n in (1, 2, 3)),
    *(
        Kernel(
            f"adaptive_max_pool{n}d",
            "adaptive max pool of codes",
            codes.adaptive_max_pool,
            reference.adaptive_max_pool,
            (_known_windows,),
            arrange=_adaptive,
        )
        for n in (1, 2, 3)
    ),
    _same("mean", reference.mean),
    Kernel("roll", "roll of codes", codes.roll, reference.roll, arrange=_roll),
    _same("pad", reference.pad, one_of("mode", "constant", "reflect", verb="pads by"), _no_3d_reflection),
    Kernel(
        "interpolate",
        "quantized interpolate",
        codes.interpolate_line,
        reference.interpolate_bilinear,
        (one_of("mode", "nearest", "nearest-exact", "bilinear", "linear", verb="interpolates by"),),
        arrange=_line,
        own_call=_not_in_one_dimension,
    ),
)

NATIVE: Mapping[str, Kernel] = {kernel.op: kernel for kernel in (*_OWN_RANGE, *_INPUTS_RANGE)}
"""By canonical op. Ops that only move values (view, permute, chunk ...) need no entry: any tensor takes them."""
