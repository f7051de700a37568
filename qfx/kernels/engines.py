"""Which of torch's quantized engines runs a layer: a written table, never a stopwatch.

An engine is fixed when a weight is packed, and packed weights of different engines mix freely in one graph. No engine
is best everywhere and each is wrong somewhere, so there are two tables: ``LIMITS`` says what an engine must not be
given (it raises, ends the process or, silently, gives wrong numbers), ``RULES`` says which one to take; the first rule
that holds and whose engine has no limit wins. The numbers come from ``benchmarks/engines.py`` with torch 2.13 on one
core, with AVX512-VNNI and held to AVX2: the choice is never more than twice as slow as the best engine that is right.
Limits are probed by ``tests/kernels/test_engines.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

from qfx.errors import KernelError
from qfx.kernels.cpu import has_tiles
from qfx.kernels.packing import built_engines
from qfx.kernels.reference.overflow import SAFE_CODE
from qfx.reject import Reject

ENGINES = ("onednn", "fbgemm", "qnnpack")
"""In the order they are tried where no rule holds."""


@dataclass(frozen=True)
class LayerFacts:
    """What the tables may know of one layer.

    Attributes:
        op: ``"linear"``, ``"conv1d"`` ... ``"conv3d"``, ``"conv_transpose1d"`` ... ``"conv_transpose3d"``.
        in_channels, out_channels: features, for a linear layer.
        groups: 1 by default.
        kernel, stride, padding, dilation, output_padding: one number per spatial dimension; ``()`` for linear.
        per_channel: whether the weight has one scale per output channel.
        symmetric_weight: whether the weight's zero points are all 0 (default).
        act_codes: the codes activations take inside the observed range, ``(0, 127)`` for 7 bits; all 8 by default.
    """

    op: str
    in_channels: int
    out_channels: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    per_channel: bool = False
    symmetric_weight: bool = True
    act_codes: tuple[int, int] = (0, 255)

    @property
    def transposed(self) -> bool:
        """Whether this is a transposed convolution."""
        return self.op.startswith("conv_transpose")

    @property
    def group_in(self) -> int:
        """Input channels of one group."""
        return self.in_channels // self.groups

    @property
    def group_out(self) -> int:
        """Output channels of one group."""
        return self.out_channels // self.groups

    @property
    def depthwise(self) -> bool:
        """Whether each channel is a group of its own, with one output."""
        return self.groups > 1 and self.group_in == self.group_out == 1

    @property
    def same_padded(self) -> bool:
        """Whether the padding is half the kernel and nothing is dilated: the only layout fbgemm's fast kernels take."""
        return all(p == k // 2 for p, k in zip(self.padding, self.kernel, strict=True)) and set(self.dilation) <= {1}

    @property
    def fbgemm_depthwise(self) -> bool:
        """Whether fbgemm runs this by its depthwise kernels, which add products in 16-bit pairs on every CPU."""
        return (
            self.op in ("conv2d", "conv3d")
            and self.group_in == 1
            and self.group_out in (1, 2)
            and self.groups % 8 == 0
            and self.same_padded
            and set(self.stride) <= {1, 2}
            and set(self.kernel) <= {3, 5, 7}
            and self.kernel[-1] == self.kernel[-2]
        )

    @property
    def pairs_fit(self) -> bool:
        """Whether 16-bit sums hold the products of two activations inside the observed range, whatever the weights."""
        return self.act_codes[1] <= SAFE_CODE

    @property
    def padding_fills_kernel(self) -> bool:
        """Whether some window lies wholly in the padding."""
        return any(p >= k for p, k in zip(self.padding, self.kernel, strict=True))


@dataclass(frozen=True)
class EngineChoice:
    """The engine of one layer, and a sentence of why."""

    engine: str
    why: str


@dataclass(frozen=True)
class Limit:
    """A kind of layer an engine must not be given; with `tiles`, on CPUs that multiply in tiles (AMX)."""

    engine: str
    holds: Callable[[LayerFacts], bool]
    reason: str
    tiles: bool = False


@dataclass(frozen=True)
class EngineRule:
    """A kind of layer and the engine to take for it; ``holds`` also gets whether the CPU has AVX512.

    With `tiles`, on CPUs with AMX only.
    """

    engine: str
    holds: Callable[[LayerFacts, bool], bool]
    why: str
    tiles: bool = False


LIMITS: tuple[Limit, ...] = (
    Limit("onednn", lambda f: not f.symmetric_weight, "onednn takes weights with zero point 0 only (it raises)"),
    Limit("onednn", lambda f: f.in_channels == 0, "onednn ends the process given no input features"),
    Limit("onednn", lambda f: any(f.output_padding), "onednn takes no output padding (it raises)"),
    Limit(
        "onednn",
        lambda f: f.transposed and f.group_in != f.group_out and 1 not in (f.group_in, f.group_out),
        "onednn gives wrong numbers for transposed convolutions whose groups have other numbers of outputs than inputs",
    ),
    Limit(
        "onednn",
        lambda f: f.transposed and any(s > k for s, k in zip(f.stride, f.kernel, strict=True)),
        "onednn gives wrong numbers for transposed convolutions with gaps between windows, on AVX2",
    ),
    Limit(
        "onednn",
        lambda f: not f.transposed and (f.groups > 1 or f.group_in == 1) and f.padding_fills_kernel,
        "onednn reads memory nobody wrote for groups, or one input channel, padded as wide as the kernel, on AVX512",
    ),
    Limit(
        "onednn",
        lambda f: f.op in ("conv1d", "conv2d", "conv3d") and not f.depthwise and f.stride[-1] > 1,
        "onednn gives wrong numbers for convolutions with strides where one column is left, on CPUs with AMX",
        tiles=True,
    ),
    Limit("onednn", lambda f: f.transposed and f.per_channel, "onednn takes transposed weights per tensor only"),
    Limit("fbgemm", lambda f: f.transposed and f.per_channel, "fbgemm takes transposed weights per tensor only"),
    Limit(
        "qnnpack",
        lambda f: f.op == "conv_transpose3d",
        "qnnpack gives wrong numbers for 3d transposed convolutions",
    ),
    Limit(
        "qnnpack",
        lambda f: f.transposed and f.per_channel and f.groups > 1,
        "qnnpack reads beyond the scales of a grouped transposed weight per channel",
    ),
)

_SATURATES = (
    "fbgemm's kernels for groups of one channel add products in 16 bits on every CPU, and 8-bit activations exceed them"
)

RULES: tuple[EngineRule, ...] = (
    EngineRule("onednn", lambda f, wide: f.fbgemm_depthwise and not f.pairs_fit, _SATURATES),
    EngineRule("qnnpack", lambda f, wide: f.fbgemm_depthwise and not f.pairs_fit, _SATURATES),
    EngineRule(
        "fbgemm",
        lambda f, wide: f.op == "linear",
        "fbgemm's matrix product is up to 5 times as fast as onednn's on AVX2, and at worst 1.25 times as slow on VNNI",
    ),
    EngineRule(
        "fbgemm",
        lambda f, wide: (
            not f.transposed
            and f.op != "conv1d"
            and f.same_padded
            and set(f.kernel) == {3}
            and set(f.stride) <= {1, 2}
            and (f.group_in, f.group_out) in ((1, 2), (2, 2))
            and f.groups % 8 == 0
        ),
        "for groups of one or two channels fbgemm has kernels of its own (3 by 3, padded); onednn takes 3.5 to 150 "
        "times as long",
    ),
    EngineRule(
        "onednn",
        lambda f, wide: f.groups > 1 and wide and not f.depthwise,
        "with AVX512 onednn takes groups of any size well; fbgemm multiplies them one by one, 2 to 20 times as long",
    ),
    EngineRule(
        "fbgemm",
        lambda f, wide: f.groups > 1 and not f.depthwise and (f.group_in % 4 != 0 or f.group_out % 4 != 0),
        "on AVX2 onednn has no kernel for groups that are not multiples of four channels; its plain loops take 2 to 17 "
        "times as long",
    ),
    EngineRule(
        "fbgemm",
        lambda f, wide: f.op == "conv3d" and f.depthwise and not wide and f.same_padded,
        "on AVX2 onednn runs 3d depthwise convolutions in plain loops, 35 to 60 times as long",
    ),
    EngineRule(
        "onednn",
        lambda f, wide: f.depthwise,
        "onednn takes every depthwise layer well; fbgemm's own kernels need padding of half the kernel (without it: "
        "48 ms where onednn takes 0.4)",
    ),
    EngineRule(
        "fbgemm",
        lambda f, wide: (
            f.groups == 1
            and not f.transposed
            and {*f.kernel, *f.stride} == {1}
            and f.in_channels * f.out_channels >= 2**16
        ),
        "with AMX onednn lays large weights out for the first shape it sees, and anew in every call of another: 5 to "
        "100 times as long; fbgemm takes at most 1.6 times what onednn takes for the first shape",
        tiles=True,
    ),
    EngineRule(
        "onednn",
        lambda f, wide: f.op != "linear",
        "onednn is the fastest, or within 1.5 times of it, for ungrouped convolutions; in 3d fbgemm takes 2 to 10 "
        "times as long",
    ),
)


def limits(layer: LayerFacts, engine: str, *, tiles: bool | None = None) -> Reject | None:
    """Return why ``engine`` must not be given ``layer``, or ``None``.

    Args:
        layer: what is known of it.
        engine: whose limits.
        tiles: whether the CPU has AMX; by default what this one has.

    Raises:
        KernelError: ``engine`` is unknown.
    """
    if tiles is None:
        tiles = has_tiles()
    if engine not in ENGINES:
        raise KernelError(f"no kernel library is called {engine!r}; use one of {', '.join(ENGINES)}")
    apply = (limit for limit in LIMITS if limit.engine == engine and (tiles or not limit.tiles))
    return next((Reject(limit.reason) for limit in apply if limit.holds(layer)), None)


def choose_engine(layer: LayerFacts, *, capability: str | None = None) -> EngineChoice | Reject:
    """Return the engine the tables give for ``layer``; the same answer for the same layer and kind of CPU, always.

    Args:
        layer: what is known of it.
        capability: ``"AVX2"``, ``"AVX512"``, ``"AVX512_AMX"`` ...; by default this CPU's.

    Returns:
        The choice, or a ``Reject`` where no engine of this build takes the layer.

    Example:
        >>> choose_engine(LayerFacts("linear", 64, 10)).engine
        'fbgemm'
    """
    wide = (capability or torch.backends.cpu.get_cpu_capability()).upper().startswith("AVX512")
    tiles = has_tiles() if capability is None else "AMX" in capability.upper()
    return _chosen(layer, wide, tiles, built_engines())


@lru_cache(maxsize=4096)
def _chosen(layer: LayerFacts, wide: bool, tiles: bool, built: tuple[str, ...]) -> EngineChoice | Reject:
    refused = {engine: limits(layer, engine, tiles=tiles) for engine in ENGINES if engine in built}
    takers = [engine for engine, refusal in refused.items() if refusal is None]
    for rule in RULES:
        if rule.engine in takers and (tiles or not rule.tiles) and rule.holds(layer, wide):
            return EngineChoice(rule.engine, rule.why)
    reasons = "; ".join(str(refusal) for refusal in refused.values() if refusal is not None)
    if takers:
        return EngineChoice(takers[0], reasons or "the only engine of this build of torch")
    return Reject(reasons or "this build of torch has no quantized engine")


def engine_for(layer: LayerFacts, engine_setting: str | None = None) -> EngineChoice | Reject:
    """Return the engine for ``layer``: the one that is set, or the table's choice while that is ``"x86"``.

    A set engine (fbgemm, onednn, qnnpack) is obeyed, except that it is never given what ``LIMITS`` says it must not be.

    Args:
        layer: what is known of it.
        engine_setting: ``torch.backends.quantized.engine`` by default.

    Raises:
        KernelError: the setting names no kernel library.
    """
    setting = torch.backends.quantized.engine if engine_setting is None else engine_setting
    if setting == "x86":
        return choose_engine(layer)
    refusal = limits(layer, setting)
    return EngineChoice(setting, f"torch.backends.quantized.engine is {setting!r}") if refusal is None else refusal
