"""Packed weights as a cache: from an int8 weight to what one engine's kernel takes, and back.

Packing lays a quantized weight out for one of torch's kernel libraries (*engine*). The packed object belongs to the
process that made it: copying one repacks it for whatever engine is selected, so results follow a setting (qnnpack
rounds differently), and some cannot be copied at all. So nothing in qfx ever copies or saves a packed
object. A :class:`PackedSpec` is what gets copied: the int8 weight, the bias, the geometry and the engine's name;
``spec.pack()`` makes the packed object again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from qfx.errors import ConfigError, KernelError
from qfx.frames import warn
from qfx.kernels.plain import put_together, take_apart

# x86 is torch's own mixture of fbgemm and onednn. These differ by a code where a value lies within one float32 rounding
# of a tie (docs/engines.md); qnnpack has its own arithmetic.
SAME_ARITHMETIC = ("x86", "fbgemm", "onednn")
ENGINES = (*SAME_ARITHMETIC, "qnnpack")
_WITH_FBGEMM = ("fbgemm", "x86")

# Selecting an engine is process-wide in torch, so two threads packing for different engines have to take turns.
_selection = threading.RLock()


def current_engine() -> str:
    """The name of the engine torch would pack with now, ``torch.backends.quantized.engine``."""
    return str(torch.backends.quantized.engine)


def supported_engines() -> list[str]:
    """The engines this build of torch has on this machine."""
    return [name for name in built_engines() if name in ENGINES]


@lru_cache(maxsize=1)
def built_engines() -> tuple[str, ...]:
    """What this build of torch says it has, which does not change; torch makes a list of names each time it is
    asked."""
    return tuple(torch.backends.quantized.supported_engines)


def usable_engine(engine: str | None) -> str:
    """The engine that packs on this machine where ``engine`` was asked for.

    Args:
        engine: a name of :data:`ENGINES`, or None for the one selected in torch at the moment.

    Returns:
        ``engine`` itself where this build of torch has it. Otherwise another engine: first one of the same
        arithmetic (x86, fbgemm, onednn: single codes may differ by one), else any. Where ``engine`` was named there is
        a warning that says which.

    Raises:
        ConfigError: the name is not an engine, or this build of torch has no engine at all.

    Example:
        >>> usable_engine("fbgemm") in ENGINES
        True
    """
    wanted = current_engine() if engine is None else engine
    supported = supported_engines()
    if wanted in supported:
        return wanted
    if wanted not in ENGINES and engine is not None:
        raise ConfigError(f"{engine!r} is not an engine of torch's quantized kernels; use one of {', '.join(ENGINES)}")
    if not supported:
        raise ConfigError("this build of torch has no engine for quantized kernels; use the reference target")
    alike = [name for name in SAME_ARITHMETIC if name in supported and wanted in SAME_ARITHMETIC]
    chosen = (alike or supported)[0]
    if engine is not None:
        differs = "whose codes may differ by one" if alike else "which rounds differently"
        warn(f"this build of torch has no engine {wanted!r}; packed by {chosen!r}, {differs}")
    return chosen


class packed_by:
    """Select the engine that packs inside the block, and restore the former one after it, also when the block raises.

    Args:
        engine: the engine asked for, or None for the one already selected. One this machine lacks is replaced as
            :func:`usable_engine` says.

    ``as`` gives the engine in force.

    Example:
        >>> with packed_by("fbgemm") as engine:
        ...     packed = torch.ops.quantized.linear_prepack(weight, bias)  # doctest: +SKIP
    """

    __slots__ = ("_asked", "_chosen", "_former")

    def __init__(self, engine: str | None) -> None:
        self._asked = engine

    def __enter__(self) -> str:
        _selection.acquire()
        try:
            self._former = self._chosen = former = current_engine()
            # torch lets nobody select one it lacks
            if self._asked != former and (self._asked is not None or former not in ENGINES):
                self._chosen = usable_engine(self._asked)
                if self._chosen != former:
                    torch.backends.quantized.engine = self._chosen
        except BaseException:
            _selection.release()
            raise
        return self._chosen

    def __exit__(self, *error: object) -> None:
        if self._chosen != self._former:
            torch.backends.quantized.engine = self._former
        _selection.release()


@dataclass(frozen=True, eq=False)
class PackedSpec:
    """Everything a packed weight is made from; the thing to keep, copy and save instead of the packed object.

    Args:
        kind: ``"linear"``, ``"linear_fp16"``, ``"linear_sparse"``, ``"conv1d"``, ``"conv2d"`` or ``"conv3d"``.
        weight: the quantized weight, ``torch.qint8``, per tensor or per output channel. Shape ``(out, in)`` for linear,
            ``(out, in / groups, *kernel)`` for a convolution, ``(in, out / groups, *kernel)`` for a transposed one. For
            ``"linear_fp16"`` a float weight, stored as half floats.
        bias: a float tensor of length ``out``, or None.
        stride, padding, output_padding, dilation: one int per spatial dimension; empty for linear.
        groups: number of groups of a convolution.
        transposed: whether the convolution is a transposed one.
        block: rows and columns of the blocks a sparse weight is made of.
        engine: who packs. None takes the engine selected in torch when the spec is made, and records its name, so
            that a copy made under another setting computes the same numbers.

    Raises:
        ConfigError: the kind or the engine has no such name.
        KernelError: by :meth:`pack`, where the engine does not take this weight.

    Example:
        >>> spec = PackedSpec("linear", qweight, bias, engine="fbgemm")  # doctest: +SKIP
        >>> y = torch.ops.quantized.linear(x, spec.pack(), scale, zero_point)  # doctest: +SKIP
    """

    kind: str
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    block: tuple[int, ...] = ()
    engine: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ConfigError(f"no packed weight of kind {self.kind!r}; use one of {', '.join(_KINDS)}")
        object.__setattr__(self, "engine", current_engine() if self.engine is None else self.engine)

    def __getstate__(self) -> dict[str, Any]:
        """Plain tensors, so that copies and pickles need none of the deprecated dtypes."""
        return self.__dict__ | {"weight": take_apart(self.weight)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put the weight together again."""
        self.__dict__.update(state | {"weight": put_together(state["weight"])})

    def state(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What a state dict keeps of it: the quantized weight and the bias."""
        return self.weight, self.bias

    def with_state(self, state: Any) -> PackedSpec:
        """This spec with the weight and bias of a state dict; takes packed objects of the original's too.

        Raises:
            KernelError: the shapes differ.
        """
        weight, bias = state if isinstance(state, tuple) else unpack(state, self.kind, engine=self.engine)
        if weight.shape != self.weight.shape:
            shapes = f"{tuple(weight.shape)}, this layer {tuple(self.weight.shape)}"
            raise KernelError(f"the state dict has a weight of shape {shapes}; build the model it was saved from")
        return replace(self, weight=weight, bias=bias)

    def pack(self) -> Any:
        """Pack for the engine on this machine; the result is what ``torch.ops.quantized.*`` takes."""
        with packed_by(self.engine) as engine:
            reason = unpackable(self, engine)
            if reason is None:
                try:
                    return _KINDS[self.kind](self)
                except RuntimeError as error:
                    reason = str(error).splitlines()[0]
        raise KernelError(
            f"engine {engine!r} cannot pack this {'transposed ' if self.transposed else ''}{self.kind} "
            f"(weight {tuple(self.weight.shape)}, {self.weight.dtype}): {reason}; "
            "choose another engine or leave the layer float"
        )


def unpackable(spec: PackedSpec, engine: str) -> str | None:
    """Why ``engine`` must not be given this weight, where torch itself would fail late or compute wrong numbers; None
    if it may.

    These were found by comparing torch's kernels with float references; what torch refuses by itself is not repeated
    here.
    """
    if not spec.weight.is_cpu:
        return f"quantized kernels run on the CPU and the weight is on {spec.weight.device}"
    if spec.kind != "linear_fp16" and spec.weight.dtype != torch.qint8:
        return "the kernels take torch.qint8 weights only"
    if spec.kind != "linear_fp16" and spec.weight.qscheme() == torch.per_channel_affine:
        axis = spec.weight.q_per_channel_axis()
        if axis != int(spec.transposed):
            return f"its scales lie along axis {axis}, its output channels along axis {int(spec.transposed)}"
    if engine == "qnnpack" and spec.transposed:
        if spec.kind == "conv3d":
            return "its transposed 3d kernel gives wrong numbers"
        if spec.groups > 1 and spec.weight.qscheme() == torch.per_channel_affine:
            return "its grouped transposed kernel misreads per-channel scales"
    return None


def pack_conv(spec: PackedSpec) -> Any:
    """``spec.pack()`` for a convolution; the packed object is the weight argument of ``torch.ops.quantized.conv*``."""
    return spec.pack()


def pack_linear(weight: torch.Tensor, bias: torch.Tensor | None = None, *, engine: str | None = None) -> Any:
    """Pack an ``(out, in)`` int8 weight; the packed object is the weight argument of
    ``torch.ops.quantized.linear*``."""
    return PackedSpec("linear", weight, bias, engine=engine).pack()


def unpack(packed: Any, kind: str, *, engine: str | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The int8 weight and the bias inside a packed object that came from elsewhere (qfx's own modules never need this).

    Args:
        packed: what a ``*_prepack`` operator returned.
        kind: as in :class:`PackedSpec`.
        engine: the engine that packed it; the 1d operators look at the one selected in torch.

    Raises:
        ConfigError: the kind has no such name.
        KernelError: the engine cannot unpack (qnnpack and 3d convolutions).
    """
    if kind not in _KINDS:
        raise ConfigError(f"no packed weight of kind {kind!r}; use one of {', '.join(_KINDS)}")
    with packed_by(engine):
        try:
            weight, bias = _UNPACK[kind](packed)[:2]
        except RuntimeError as error:
            raise KernelError(
                f"cannot unpack this {kind}: {str(error).splitlines()[0]}; keep a PackedSpec and pack from it instead"
            ) from error
    return weight, bias


def reaches_direct_kernel(kernel: tuple[int, ...], padding: tuple[int, ...], groups: int) -> bool:
    """Whether a transposed convolution in two dimensions may reach fbgemm's direct kernel, whose output is wrong by any
    amount: ungrouped, unpadded, of kernel height 2 (and channels in eights, which is not asked here)."""
    return len(kernel) == 2 and kernel[0] == 2 and groups == 1 and not any(padding)


def _prepack_conv(spec: PackedSpec) -> Any:
    weight, padding = spec.weight, tuple(spec.padding)
    name = f"{spec.kind}_prepack"
    if not spec.transposed:
        return getattr(torch.ops.quantized, name)(weight, spec.bias, spec.stride, padding, spec.dilation, spec.groups)
    if current_engine() in _WITH_FBGEMM and reaches_direct_kernel(tuple(weight.shape[2:]), padding, spec.groups):
        # A border of zeros left and right, and as much padding, is the same layer by another kernel.
        weight, padding = torch.nn.functional.pad(weight, (1, 1)), (0, spec.dilation[1])
    output_padding = spec.output_padding or (0,) * len(spec.stride)
    pack = getattr(torch.ops.quantized, name.replace("conv", "conv_transpose"))
    return pack(weight, spec.bias, spec.stride, padding, output_padding, spec.dilation, spec.groups)


def _prepack_linear(spec: PackedSpec) -> Any:
    return torch.ops.quantized.linear_prepack(spec.weight, spec.bias)


def _prepack_linear_fp16(spec: PackedSpec) -> Any:
    return torch.ops.quantized.linear_prepack_fp16(spec.weight, spec.bias)


def _prepack_linear_sparse(spec: PackedSpec) -> Any:
    return torch.ops.sparse.qlinear_prepack(spec.weight, spec.bias, *spec.block)


_KINDS: dict[str, Callable[[PackedSpec], Any]] = {
    "linear": _prepack_linear,
    "linear_fp16": _prepack_linear_fp16,
    "linear_sparse": _prepack_linear_sparse,
    "conv1d": _prepack_conv,
    "conv2d": _prepack_conv,
    "conv3d": _prepack_conv,
}
_UNPACK = {kind: getattr(torch.ops.quantized, f"{kind}_unpack") for kind in _KINDS if "_" not in kind} | {
    "linear_fp16": torch.ops.quantized.linear_unpack_fp16,
    "linear_sparse": torch.ops.sparse.qlinear_unpack,
}
