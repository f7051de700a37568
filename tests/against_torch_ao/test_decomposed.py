"""Our definitions of ``torch.ops.quantized_decomposed`` against PyTorch's, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qfx.kernels import decomposed

pytest.importorskip("torch.ao.quantization.fx._decomposed")
theirs = torch.ops.quantized_decomposed
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


KEPT: list[Any] = []


@pytest.fixture(scope="session")
def ours() -> Any:
    KEPT.append(decomposed.define("qfx_decomposed_against"))  # for good, as in tests/kernels/test_decomposed.py
    return torch.ops.qfx_decomposed_against


def same(ours: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    operators = []
    for found in (ours, theirs):
        for part in name.split("."):
            found = getattr(found, part)
        operators.append(found)
    mine, other = (operator(*args, **kwargs) for operator in operators)
    torch.testing.assert_close(mine, other, rtol=0, atol=0)
    return other


@pytest.mark.parametrize("signature", [signature for signature, _ in decomposed._OPERATORS])
def test_schemas(ours: Any, signature: str) -> None:
    base, _, overload = signature.partition("(")[0].partition(".")
    mine, other = (str(getattr(getattr(q, base), overload or "default")._schema) for q in (ours, theirs))
    assert mine.partition("::")[2] == other.partition("::")[2]


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_scale(ours: Any, dtype: torch.dtype) -> None:
    for scale in (0.1, 0.0173, float(torch.rand(1))):
        x = (torch.randn(4, 6, 8) * 5).to(dtype)
        told: tuple[Any, ...] = (scale, 3, -128, 127, torch.int8)
        tensors = (torch.tensor([scale]), torch.tensor(3), -128, 127, torch.int8)
        bounds = (torch.tensor(scale), torch.tensor(3), torch.tensor(-100), torch.tensor(100), torch.int8)
        same(ours, "quantize_per_tensor.tensor", x, torch.tensor(scale).double(), torch.tensor([3]), *told[2:])
        same(ours, "quantize_per_tensor.tensor2", x, *bounds)
        codes = same(ours, "quantize_per_tensor", x, *told)
        for out in (None, torch.float64, *FLOATS):
            same(ours, "dequantize_per_tensor", codes, *told, out_dtype=out)
            same(ours, "dequantize_per_tensor.tensor", codes, *tensors, out_dtype=out)
            same(ours, "dequantize_per_tensor.tensor2", codes, *bounds, out_dtype=out)


@pytest.mark.parametrize("dtype", FLOATS)
def test_chosen_parameters(ours: Any, dtype: torch.dtype) -> None:
    for _ in range(100):
        x = (torch.randn(50) * torch.rand(1) * 5 + torch.randn(1)).to(dtype)
        for codes in ((-128, 127, 1e-5, torch.int8), (0, 255, 1e-5, torch.uint8), (-127, 127, 0.1, torch.int8)):
            same(ours, "choose_qparams.tensor", x, *codes)
            same(ours, "choose_qparams_symmetric.tensor", x, *codes)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels(ours: Any, dtype: torch.dtype, kind: torch.dtype, axis: int) -> None:
    x = torch.randn(4, 6, 8).to(dtype)
    scale = torch.rand(x.shape[axis], dtype=kind) * 0.1 + 0.001
    told = (scale, torch.randint(-5, 5, scale.shape), axis, -128, 127, torch.int8)
    codes = same(ours, "quantize_per_channel", x, *told)
    for out in (None, torch.float16, torch.bfloat16):
        same(ours, "dequantize_per_channel", codes, *told, out_dtype=out)
        same(ours, "dequantize_per_channel", codes, scale, None, *told[2:], out_dtype=out)


@pytest.mark.parametrize("dtype", FLOATS)
def test_tokens_and_groups(ours: Any, dtype: torch.dtype) -> None:
    x = (torch.randn(4, 6, 8) * 3).to(dtype)
    same(ours, "choose_qparams_per_token", x, torch.int8)
    same(ours, "_choose_qparams_per_token_asymmetric_impl", x, torch.int8)
    told = (*same(ours, "choose_qparams_per_token_asymmetric", x, torch.int8), -128, 127, torch.int8)
    codes = same(ours, "quantize_per_token", x, *told)
    scale, zero = torch.rand(6, 2) * 0.1 + 0.001, torch.randint(-2, 2, (6, 2)).int()
    grouped = same(ours, "quantize_per_channel_group", x[0], scale, zero, -8, 7, torch.int8, 4)
    for out in (torch.float32, torch.float16):
        same(ours, "dequantize_per_token", codes, *told, out)
        for points in (zero, None):
            same(ours, "dequantize_per_channel_group", grouped, scale, points, -8, 7, torch.int8, 4, out)


def test_gradients(ours: Any) -> None:
    x = torch.randn(4, 6, 8, requires_grad=True)
    told = (torch.rand(6), torch.randint(-2, 2, (6,)).int(), 1, -8, 7)
    same(ours, "fake_quant_per_channel", x, *told)
    mine, other = (torch.autograd.grad(q.fake_quant_per_channel(x, *told).sum(), x) for q in (ours, theirs))
    assert torch.equal(mine[0], other[0])
