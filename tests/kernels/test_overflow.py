"""16-bit sums: 8-bit activations overflow them where there is no VNNI, 7-bit activations never do."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.errors import KernelError
from qfx.kernels import reference
from qfx.qparams import QParams

# Held to what an AVX2 CPU has; oneDNN reads this once, so it needs a process of its own.
NO_VNNI = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}

PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from qfx.kernels import reference
from qfx.qparams import QParams

ops, high = torch.ops.quantized, int(sys.argv[1])
torch.backends.quantized.engine = "onednn"
q = lambda codes, scale, zero: torch._make_per_tensor_quantized_tensor(codes, scale, zero)
report = {"vnni_like": torch.backends.cpu.get_cpu_capability()}

# every product as large as it can be: 64 channels of high * 127, scaled so that the true sum is code high
x, w = torch.full((1, 64), high, dtype=torch.uint8), torch.full((4, 64), 127, dtype=torch.int8)
packed = ops.linear_prepack(q(w, 1.0, 0), None)
report["linear"] = ops.linear(q(x, 1.0, 0), packed, 127.0 * 64, 0).int_repr().unique().tolist()
packed = ops.conv2d_prepack(q(w.reshape(4, 64, 1, 1), 1.0, 0), None, [1, 1], [0, 0], [1, 1], 1)
report["conv"] = ops.conv2d(q(x.reshape(1, 64, 1, 1), 1.0, 0), packed, 127.0 * 64, 0).int_repr().unique().tolist()

# random large codes, against both models of the sums
exact = saturated = 0
for rows, inner, outer in ((4, 64, 32), (1, 17, 5), (8, 33, 16), (2, 1024, 64)):
    torch.manual_seed(0)
    x = torch.randint(high // 2, high + 1, (rows, inner)).to(torch.uint8)
    w = (torch.randint(100, 128, (outer, inner)) * torch.where(torch.rand(outer, inner) > 0.5, 1, -1)).to(torch.int8)
    out = QParams(inner**0.5 * 0.05, 128, dtype=torch.quint8)
    y = ops.linear(q(x, 0.05, 60), ops.linear_prepack(q(w, 0.02, 0), None), *out.scalars()).int_repr()
    args = (x, w, None, QParams(0.05, 60), QParams(0.02), out)
    exact += int((reference.linear(*args, engine="onednn_avx2") != y).sum())
    saturated += int((reference.linear(*args, engine="onednn_avx2", saturate16=True) != y).sum())
print(json.dumps({**report, "differ_from_exact": exact, "differ_from_16_bit_model": saturated}))
"""


def without_vnni(high: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(high)],
        env={**os.environ, **NO_VNNI},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux" or not torch.backends.mkldnn.is_available(), reason="needs oneDNN on x86")
def test_8_bits_overflow_without_vnni_and_the_model_says_how() -> None:
    seen = without_vnni(255)
    assert seen["linear"] == [129]  # 32767 / (2 * 127), where 255 is right
    assert seen["conv"] == [129]
    assert seen["differ_from_exact"] > 50
    assert seen["differ_from_16_bit_model"] == 0


@pytest.mark.skipif(sys.platform != "linux" or not torch.backends.mkldnn.is_available(), reason="needs oneDNN on x86")
def test_7_bits_never_overflow() -> None:
    seen = without_vnni(127)
    assert (seen["linear"], seen["conv"]) == ([127], [127])
    assert seen["differ_from_exact"] == seen["differ_from_16_bit_model"] == 0


def depthwise(codes: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    channels = weight.shape[0]
    out, unit = QParams(127.0 * 9, 0, dtype=torch.quint8), QParams(1.0, 0, dtype=torch.quint8)
    torch.backends.quantized.engine = "fbgemm"
    packed = torch.ops.quantized.conv2d_prepack(
        torch._make_per_tensor_quantized_tensor(weight, 1.0, 0), None, [1, 1], [1, 1], [1, 1], channels
    )
    x = torch._make_per_tensor_quantized_tensor(codes, 1.0, 0)
    found = torch.ops.quantized.conv2d(x, packed, *out.scalars()).int_repr()
    return found, reference.conv(codes, weight, None, unit, QParams(1.0), out, padding=1, groups=channels)


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="needs fbgemm")
@pytest.mark.parametrize(("high", "right"), [(255, False), (127, True)])
def test_fbgemm_depthwise_overflows_on_every_cpu(high: int, right: bool) -> None:
    """Its depthwise kernels multiply bytes in pairs even where there is VNNI: a reason not to choose it for them."""
    codes = torch.full((1, 32, 5, 5), high, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    found, exact = depthwise(codes, torch.full((32, 1, 3, 3), 127, dtype=torch.int8))
    assert torch.equal(found, exact) is right


def test_16_bit_model_is_exact_within_the_bound() -> None:
    x, w = torch.randint(0, 128, (5, 33)), torch.randint(-128, 128, (7, 33))
    assert torch.equal(reference.linear_sums_16bit(x, w, 9), ((x.double() - 9) @ w.double().T))


def test_16_bit_model_refuses_other_shapes() -> None:
    with pytest.raises(KernelError, match="input has 3 features, weight takes 4"):
        reference.linear_sums_16bit(torch.zeros(1, 3), torch.zeros(2, 4), 0)


@pytest.mark.parametrize(
    ("weight", "codes", "expected"),
    [
        ([[127, 127]], (0, 255), 2 * 127 * 255 / 32767),
        ([[-128, -128]], (0, 255), 2 * 128 * 255 / 32768),
        ([[-128, -128]], (0, 127), 2 * 128 * 127 / 32768),
        ([[127, 0, 3, 127]], (0, 255), 2 * 127 * 255 / 32767),  # any two may be neighbours once packed
        ([[127, -128]], (0, 255), 128 * 255 / 32768),
        ([[100]], (0, 255), 100 * 255 / 32767),
        ([[5, 5], [-7, -7]], (10, 20), 2 * 7 * 20 / 32768),
        ([[0, 0]], (0, 255), 0.0),
    ],
)
def test_risk_of_known_weights(weight: list[list[int]], codes: tuple[int, int], expected: float) -> None:
    assert reference.overflow_risk(torch.tensor(weight, dtype=torch.int8), *codes) == pytest.approx(expected)


def test_risk_of_nothing_and_of_impossible_codes() -> None:
    assert reference.overflow_risk(torch.zeros(3, 0, dtype=torch.int8)) == 0.0
    with pytest.raises(KernelError, match=r"-1\.\.255 are not within 0\.\.255"):
        reference.overflow_risk(torch.ones(1, 2, dtype=torch.int8), -1, 255)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 255), st.integers(0, 255))
def test_no_sum_of_a_pair_is_beyond_the_risk(seed: int, inner: int, low: int, high: int) -> None:
    low, high = min(low, high), max(low, high)
    g = torch.Generator().manual_seed(seed)
    w = torch.randint(-128, 128, (4, inner), generator=g).to(torch.int8)
    x = torch.randint(low, high + 1, (50, inner), generator=g)
    products = x.unsqueeze(1) * w.long()
    pairs = products if inner == 1 else products[..., :-1] + products[..., 1:]
    risk = reference.overflow_risk(w, low, high)
    assert float(pairs.max()) <= risk * 32767 + 1e-6
    assert float(pairs.min()) >= -risk * 32768 - 1e-6


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_7_bit_activations_are_never_at_risk(seed: int) -> None:
    w = torch.randint(-128, 128, (8, 9), generator=torch.Generator().manual_seed(seed)).to(torch.int8)
    assert reference.overflow_risk(w, 0, 127) < 1.0
