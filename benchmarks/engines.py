"""Which quantized engine is fastest for which layer: the measurements behind ``qfx/kernels/engines.py``.

Times fbgemm, onednn and float on the same layer, interleaved in one process, and prints medians, the choice of the rule
table and what it costs against the best engine; exits non-zero where that is more than the bound (a cliff).

    python -m benchmarks.engines                 # this CPU as it is
    python -m benchmarks.engines --isa avx2      # a fresh process held to AVX2 without VNNI
    python -m benchmarks.engines --families mobile linear --batches 1
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness import Row
from qfx.kernels.engines import EngineChoice, LayerFacts, choose_engine, limits
from qfx.kernels.packing import PackedSpec

BOUND = 2.0  # a choice slower than this many times the best engine is a cliff
NOISE_MS = 0.03  # differences below are dispatch overhead, not kernels
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@dataclass(frozen=True)
class Case:
    family: str
    facts: LayerFacts
    batch: int
    size: int


def conv_case(
    family: str,
    op: str,
    batch: int,
    size: int,
    cin: int,
    cout: int,
    groups: int,
    k: int,
    stride: int,
    pad: int,
    dilation: int = 1,
) -> Case:
    dim = int(op[-2])
    transposed = "transpose" in op
    facts = LayerFacts(
        op,
        cin,
        cout,
        groups=groups,
        kernel=(k,) * dim,
        stride=(stride,) * dim,
        padding=(pad,) * dim,
        dilation=(dilation,) * dim,
        output_padding=(0,) * dim if transposed else (),
        per_channel=not transposed,  # no engine on x86 takes a transposed convolution per channel
        act_codes=(0, 127),
    )
    return Case(family, facts, batch, size)


# (size, in, out, kernel, stride) of the distinct convolutions of EfficientNet-Lite0 at 224x224; depthwise where in is 0
MOBILE = [
    (224, 3, 32, 3, 2), (112, 0, 32, 3, 1), (112, 32, 16, 1, 1), (112, 16, 96, 1, 1), (112, 0, 96, 3, 2),
    (56, 96, 24, 1, 1), (56, 24, 144, 1, 1), (56, 0, 144, 3, 1), (56, 144, 24, 1, 1), (56, 0, 144, 5, 2),
    (28, 144, 40, 1, 1), (28, 40, 240, 1, 1), (28, 0, 240, 5, 1), (28, 240, 40, 1, 1), (28, 0, 240, 3, 2),
    (14, 240, 80, 1, 1), (14, 80, 480, 1, 1), (14, 0, 480, 3, 1), (14, 480, 80, 1, 1), (14, 0, 480, 5, 1),
    (14, 480, 112, 1, 1), (14, 112, 672, 1, 1), (14, 0, 672, 5, 1), (14, 672, 112, 1, 1), (14, 0, 672, 5, 2),
    (7, 672, 192, 1, 1), (7, 192, 1152, 1, 1), (7, 0, 1152, 5, 1), (7, 1152, 192, 1, 1), (7, 0, 1152, 3, 1),
    (7, 1152, 320, 1, 1), (7, 320, 1280, 1, 1),
]  # fmt: skip
RESNET = [
    (224, 3, 64, 7, 2), (56, 64, 64, 3, 1), (56, 64, 128, 3, 2), (28, 128, 128, 3, 1), (28, 128, 256, 3, 2),
    (14, 256, 256, 3, 1), (14, 256, 512, 3, 2), (7, 512, 512, 3, 1), (56, 64, 128, 1, 2), (14, 256, 512, 1, 2),
]  # fmt: skip
LINEAR = [(1, 10), (8, 8), (64, 64), (512, 10), (768, 768), (768, 3072), (1280, 1000), (2048, 1000), (4096, 4096)]
ROWS = (1, 8, 128)
# op, size, in, out, groups, kernel, stride, padding, dilation
OTHERS = [
    # depthwise, each outside fbgemm's own depthwise kernels in one way: unpadded, dilated, channels, stride, multiplier
    ("conv2d", 113, 96, 96, 96, 3, 2, 0, 1), ("conv2d", 30, 240, 240, 240, 3, 1, 0, 1),
    ("conv2d", 28, 240, 240, 240, 3, 1, 2, 2), ("conv2d", 28, 20, 20, 20, 3, 1, 1, 1),
    ("conv2d", 28, 240, 240, 240, 3, 3, 1, 1), ("conv2d", 28, 240, 240, 240, 1, 1, 0, 1),
    ("conv2d", 14, 240, 240, 240, 7, 1, 3, 1), ("conv2d", 56, 32, 64, 32, 3, 1, 1, 1),
    ("conv2d", 28, 64, 128, 64, 3, 1, 0, 1),
    # groups of 2, 4, 6, 8, 12, 16 channels
    ("conv2d", 28, 64, 64, 32, 3, 1, 1, 1), ("conv2d", 28, 64, 64, 32, 3, 1, 0, 1),
    ("conv2d", 28, 128, 128, 32, 3, 1, 1, 1), ("conv2d", 28, 66, 66, 11, 3, 1, 1, 1),
    ("conv2d", 14, 256, 256, 32, 3, 2, 1, 1), ("conv2d", 28, 60, 60, 5, 3, 1, 1, 1),
    ("conv2d", 28, 64, 64, 4, 3, 1, 1, 1), ("conv2d", 28, 64, 32, 8, 3, 1, 1, 1),
    ("conv2d", 28, 32, 64, 8, 3, 1, 1, 1), ("conv2d", 28, 64, 64, 32, 1, 1, 0, 1),
    ("conv2d", 28, 60, 60, 20, 3, 1, 1, 1), ("conv2d", 28, 60, 60, 12, 3, 1, 1, 1),
    # dense: dilated, unpadded, odd channels, few channels, large kernels
    ("conv2d", 28, 64, 64, 1, 3, 1, 2, 2), ("conv2d", 28, 64, 64, 1, 3, 1, 0, 1),
    ("conv2d", 28, 65, 65, 1, 3, 1, 1, 1), ("conv2d", 28, 16, 16, 1, 3, 1, 1, 1),
    ("conv2d", 28, 8, 8, 1, 5, 1, 2, 1), ("conv2d", 8, 1, 16, 1, 3, 1, 1, 1), ("conv2d", 8, 3, 5, 1, 3, 1, 1, 1),
    ("conv2d", 4, 64, 64, 1, 3, 1, 1, 1), ("conv2d", 28, 128, 1, 1, 1, 1, 0, 1),
    ("conv1d", 1000, 1, 32, 1, 9, 1, 4, 1), ("conv1d", 1000, 64, 64, 1, 3, 1, 1, 1),
    ("conv1d", 1000, 64, 64, 1, 3, 1, 4, 4), ("conv1d", 1000, 64, 64, 64, 3, 1, 1, 1),
    ("conv1d", 1000, 64, 64, 64, 9, 2, 4, 1), ("conv1d", 256, 256, 256, 1, 1, 1, 0, 1),
    ("conv1d", 1000, 64, 64, 8, 3, 1, 1, 1), ("conv1d", 1000, 64, 128, 64, 3, 1, 1, 1),
    ("conv1d", 1000, 64, 64, 32, 3, 1, 1, 1), ("conv3d", 16, 3, 32, 1, 3, 1, 1, 1),
    ("conv3d", 16, 32, 32, 1, 3, 1, 1, 1), ("conv3d", 16, 32, 64, 1, 1, 1, 0, 1),
    ("conv3d", 16, 32, 32, 32, 3, 1, 1, 1), ("conv3d", 16, 32, 32, 32, 3, 2, 1, 1),
    ("conv3d", 16, 32, 32, 32, 3, 1, 0, 1), ("conv3d", 16, 30, 30, 30, 3, 1, 1, 1),
    ("conv3d", 8, 32, 32, 4, 3, 1, 1, 1), ("conv3d", 8, 32, 32, 8, 3, 1, 1, 1),
    ("conv3d", 8, 32, 32, 16, 3, 1, 1, 1), ("conv3d", 8, 32, 64, 32, 3, 1, 1, 1),
    ("conv_transpose1d", 256, 64, 64, 1, 4, 2, 1, 1), ("conv_transpose1d", 256, 64, 64, 64, 4, 2, 1, 1),
    ("conv_transpose2d", 14, 64, 64, 1, 4, 2, 1, 1), ("conv_transpose2d", 28, 128, 64, 1, 2, 2, 0, 1),
    ("conv_transpose2d", 28, 64, 64, 1, 2, 2, 0, 1), ("conv_transpose2d", 28, 32, 32, 1, 3, 1, 1, 1),
    ("conv_transpose2d", 14, 64, 32, 1, 4, 2, 1, 1), ("conv_transpose2d", 14, 256, 128, 1, 3, 2, 1, 1),
    ("conv_transpose2d", 14, 128, 3, 1, 4, 4, 0, 1), ("conv_transpose2d", 14, 64, 64, 64, 4, 2, 1, 1),
    ("conv_transpose2d", 14, 64, 64, 4, 4, 2, 1, 1), ("conv_transpose2d", 14, 64, 64, 32, 4, 2, 1, 1),
    ("conv_transpose3d", 8, 32, 16, 1, 2, 2, 0, 1), ("conv_transpose3d", 8, 32, 32, 1, 2, 2, 0, 1),
    ("conv_transpose3d", 8, 32, 32, 1, 3, 1, 1, 1), ("conv_transpose3d", 8, 32, 32, 4, 3, 1, 1, 1),
    ("conv_transpose3d", 8, 16, 16, 16, 3, 1, 1, 1),
]  # fmt: skip


def cases(families: list[str], batches: list[int]) -> Iterator[Case]:
    for batch in batches:
        for family, table in (("mobile", MOBILE), ("resnet", RESNET)):
            for size, cin, cout, k, stride in table if family in families else ():
                groups = 1 if cin else cout
                yield conv_case(family, "conv2d", batch, size, cin or cout, cout, groups, k, stride, (k - 1) // 2)
        for op, *numbers in OTHERS if "others" in families else ():
            yield conv_case("others", op, batch, *numbers)
    if "linear" in families:
        for rows in ROWS:
            for cin, cout in LINEAR:
                yield Case("linear", LayerFacts("linear", cin, cout, per_channel=True, act_codes=(0, 127)), rows, 0)


def shapes(case: Case) -> tuple[tuple[int, ...], tuple[int, ...]]:
    f = case.facts
    if f.op == "linear":
        return (case.batch, f.in_channels), (f.out_channels, f.in_channels)
    x = (case.batch, f.in_channels, *[case.size] * len(f.kernel))
    if "transpose" in f.op:
        return x, (f.in_channels, f.out_channels // f.groups, *f.kernel)
    return x, (f.out_channels, f.in_channels // f.groups, *f.kernel)


def channels_last(t: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return t.contiguous(memory_format=formats[t.dim()]) if t.dim() in formats else t


def quantized_call(case: Case, engine: str) -> Callable[[], Tensor]:
    f = case.facts
    torch.backends.quantized.engine = engine
    x_shape, w_shape = shapes(case)
    w = torch.randn(w_shape)
    axis = 1 if "transpose" in f.op else 0
    if f.per_channel:
        n = w_shape[axis]
        qw = torch.quantize_per_channel(w, torch.full((n,), 0.03), torch.zeros(n, dtype=torch.int64), axis, torch.qint8)
    else:
        qw = torch.quantize_per_tensor(w, 0.03, 0, torch.qint8)
    bias = torch.randn(f.out_channels)
    geometry = (f.stride, f.padding, f.output_padding, f.dilation, f.groups)
    packed = PackedSpec(f.op.replace("_transpose", ""), qw, bias, *geometry, f.transposed, engine).pack()
    x = channels_last(torch.quantize_per_tensor(torch.randn(x_shape), 0.05, 60, torch.quint8))
    run = getattr(torch.ops.quantized, f.op)
    return lambda: run(x, packed, 0.5, 60)


def float_call(case: Case) -> Callable[[], Tensor]:
    f = case.facts
    x_shape, w_shape = shapes(case)
    x, w, b = channels_last(torch.randn(x_shape)), channels_last(torch.randn(w_shape)), torch.randn(f.out_channels)
    run = getattr(torch.nn.functional, f.op)
    attrs = {}
    if f.op != "linear":
        attrs = {"stride": f.stride, "padding": f.padding, "groups": f.groups, "dilation": f.dilation}
    return lambda: run(x, w, b, **attrs)


def hold_fbgemm_to_avx2() -> bool:
    """Make fbgemm use what it uses on an AVX2 CPU; it knows no environment variable for that."""
    library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
    try:
        library["_ZN6fbgemm14fbgemmForceIsaENS_10inst_set_tE"](1)  # fbgemm::fbgemmForceIsa(inst_set_t::avx2)
    except AttributeError:
        return False
    return True


def medians(calls: dict[str, Callable[[], Tensor]], budget: float) -> dict[str, float]:
    """Time the calls in turns until ``budget`` seconds are gone, at least 3 times each; milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    loops = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        loops[name] = max(1, int(0.0005 / (time.perf_counter() - start)))
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(times[name]) < 3:
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(loops[name]):
                call()
            times[name].append((time.perf_counter() - start) / loops[name] * 1e3)
    return {name: statistics.median(t) for name, t in times.items()}


def measure(case: Case, engines: list[str], budget: float) -> dict[str, float]:
    calls = {}
    for engine in engines:
        if engine == "float":
            calls[engine] = float_call(case)
        else:
            calls[engine] = quantized_call(case, engine)
    return medians(calls, budget)


def label(case: Case) -> str:
    f = case.facts
    if f.op == "linear":
        return f"linear {f.in_channels}->{f.out_channels} rows {case.batch}"
    k = f"k{f.kernel[0]} s{f.stride[0]} p{f.padding[0]}{f' d{f.dilation[0]}' if f.dilation[0] > 1 else ''}"
    kind = " depthwise" if f.groups == f.in_channels > 1 else f" groups {f.groups}" if f.groups > 1 else ""
    return f"{f.op} {f.in_channels}->{f.out_channels} {k}{kind} {case.size}px batch {case.batch}"


def rows() -> list[Row]:
    """The worst choice of the table over all cases at batch 1, on this CPU as it is and held to AVX2."""
    found = []
    for isa in ("native", "avx2"):
        command = [sys.executable, "-m", "benchmarks.engines", "--isa", isa, "--batches", "1", "--threads", "1"]
        done = subprocess.run([*command, "--budget", "0.03"], capture_output=True, text=True)
        worst = re.search(r"worst choice ([0-9.]+)x", done.stdout)
        value = float(worst[1]) if worst else float("inf")
        found.append(Row(f"engine table, slowest choice against the best engine ({isa})", value, BOUND, "max"))
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", choices=["native", "avx2"], default="native")
    parser.add_argument("--families", nargs="+", default=["mobile", "resnet", "linear", "others"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--engines", nargs="+", default=["fbgemm", "onednn", "float"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budget", type=float, default=0.1, help="seconds per layer")
    args = parser.parse_args(argv)
    if args.isa == "avx2" and any(os.environ.get(name) != value for name, value in AVX2.items()):
        # both libraries read their limits once, when they load
        command = [sys.executable, "-m", "benchmarks.engines", *(argv or sys.argv[1:])]
        return subprocess.run(command, env={**os.environ, **AVX2}).returncode
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    if args.isa == "avx2" and not hold_fbgemm_to_avx2():
        print("this torch does not let fbgemm be held to AVX2; its numbers are of the CPU as it is")
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {capability}, isa {args.isa}, {args.threads} threads")
    worst, cliffs = 0.0, 0
    totals: dict[tuple[str, int], dict[str, float]] = {}
    for case in cases(args.families, args.batches):
        choice = choose_engine(case.facts)
        assert isinstance(choice, EngineChoice), choice
        ms = measure(case, [*args.engines, *{choice.engine}.difference(args.engines)], args.budget)
        best = min(t for e, t in ms.items() if e != "float" and limits(case.facts, e) is None)
        ratio = ms[choice.engine] / best
        cliff = ratio > BOUND and ms[choice.engine] - best > NOISE_MS
        if ms[choice.engine] - best > NOISE_MS:
            worst, cliffs = max(worst, ratio), cliffs + cliff
        total = totals.setdefault((case.family, case.batch), dict.fromkeys([*args.engines, "chosen", "best"], 0.0))
        total.setdefault(choice.engine, 0.0)
        for name, value in {**ms, "chosen": ms[choice.engine], "best": best}.items():
            total[name] += value
        columns = "  ".join(f"{name} {value:8.3f}" for name, value in ms.items())
        verdict = f"{choice.engine:7s} {ratio:5.2f}x{'  CLIFF' if cliff else ''}"
        print(f"{label(case):58s} {columns}  -> {verdict}", flush=True)
    for (family, batch), total in totals.items():
        print(f"{family} batch {batch}: " + ", ".join(f"{name} {value:.2f} ms" for name, value in total.items()))
    print(f"worst choice {worst:.2f}x of the best engine, {cliffs} cliffs: {'FAIL' if cliffs else 'PASS'}")
    return 1 if cliffs else 0


if __name__ == "__main__":
    sys.exit(main())
