"""Dynamic quantization: parameters and products equal to every engine's kernel, bit by bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.errors import KernelError
from qfx.kernels import reference
from qfx.qparams import QParams, quantize

OPS = torch.ops.quantized
VNNI = torch.cpu._is_vnni_supported() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
ENGINES = ("fbgemm", "onednn", "qnnpack")
pytestmark = pytest.mark.filterwarnings("ignore:Currently, qnnpack incorrectly ignores:UserWarning")

floats = st.floats(-(2.0**100), 2.0**100, width=32, allow_nan=False)
tiny = st.floats(-(2.0**-17), 2.0**-17, width=32)


def roundings(engine: str) -> tuple[str, ...]:
    return reference.onednn_roundings_here() if engine == "onednn" else (engine,)


@settings(deadline=None, max_examples=300)
@given(
    values=st.lists(floats, min_size=1, max_size=4) | st.lists(tiny, min_size=1, max_size=4), seven_bits=st.booleans()
)
def test_chosen_parameters_are_torchs(values, seven_bits) -> None:
    x = torch.tensor(values)
    scale, zero_point = torch._choose_qparams_per_tensor(x, seven_bits)
    found = reference.dynamic_qparams(x, seven_bits=seven_bits)
    assert (found.scale, found.zero_point) == (scale, zero_point)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("relu", [False, True])
def test_random_layers(rng, wrap, using, engine: str, relu: bool) -> None:
    for _ in range(30):
        rows, inner, outer = rng.choice((1, 3, 8)), rng.choice((1, 2, 17, 64, 200)), rng.choice((1, 3, 16, 33))
        per_channel, seven_bits = rng.random() < 0.5, not VNNI or rng.random() < 0.5
        w = torch.randint(-128, 128, (outer, inner)).to(torch.int8)
        scale = torch.rand(outer) * 0.01 + 0.001 if per_channel else rng.uniform(0.001, 0.01)
        zeros = torch.zeros(outer, dtype=torch.int64) if per_channel else 0
        w_q = QParams(scale, zeros, 0 if per_channel else None, torch.qint8)
        bias = torch.randn(outer) if rng.random() < 0.7 else None
        x = torch.randn(rows, inner) * 10 ** rng.uniform(-3, 3) + rng.choice((0, 0, 1, -1))
        with using(engine):
            packed = OPS.linear_prepack(wrap(w, w_q), bias)
        run = OPS.linear_relu_dynamic if relu else OPS.linear_dynamic
        expected = run(x, packed, seven_bits)
        found = [
            reference.linear_dynamic(x, w, bias, w_q, seven_bits=seven_bits, relu=relu, engine=here)
            for here in roundings(engine)
        ]
        case = (rows, inner, outer, per_channel, bias is None, seven_bits)
        assert any(torch.equal(each, expected) for each in found), case


@pytest.mark.parametrize("engine", ENGINES)
def test_inputs_at_ties(wrap, using, engine: str) -> None:
    """Values half way between two codes: where the rounding of the input shows."""
    levels = 255 if engine == "qnnpack" else 127
    x = (torch.arange(levels + 1, dtype=torch.float32) + 0.5) * 0.1 - 3.0
    x[0], x[-1] = -3.0, levels * 0.1 - 3.0
    w_q = QParams(1.0, 0, dtype=torch.qint8)
    w = torch.ones(1, 1, dtype=torch.int8)
    with using(engine):
        packed = OPS.linear_prepack(wrap(w, w_q), None)
    expected = OPS.linear_dynamic(x[:, None], packed, True)
    found = [reference.linear_dynamic(x[:, None], w, None, w_q, engine=here) for here in roundings(engine)]
    assert any(torch.equal(each, expected) for each in found)


def test_the_product_is_the_static_one_of_the_chosen_codes() -> None:
    x, w = torch.randn(4, 8), torch.randint(-128, 128, (3, 8)).to(torch.int8)
    w_q, x_q = QParams(0.01, 0, dtype=torch.qint8), reference.dynamic_qparams(x)
    codes = quantize(x, x_q)
    assert codes.max() <= 127
    exact = (codes.double() - x_q.zero_point) @ w.double().T * float(x_q.scale) * 0.01
    torch.testing.assert_close(reference.linear_dynamic(x, w, None, w_q), exact.float())


def test_an_unknown_engine_is_an_error() -> None:
    q = QParams(1.0, 0, dtype=torch.qint8)
    with pytest.raises(KernelError, match="no kernel library is called 'x86'"):
        reference.linear_dynamic(torch.ones(1, 1), torch.ones(1, 1), None, q, engine="x86")
