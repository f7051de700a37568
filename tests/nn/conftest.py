"""What every test of ``qfx.nn`` needs: inputs, weights, modules ready to run, and torch's engine setting put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from qfx.nn import intrinsic, quantized

nniq = intrinsic.quantized


@pytest.fixture(autouse=True)
def _same_setting_afterwards() -> Iterator[None]:
    engine, threads = torch.backends.quantized.engine, torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.backends.quantized.engine = engine
    torch.set_num_threads(threads)


@pytest.fixture
def codes() -> Callable[..., torch.Tensor]:
    """A quint8 tensor of random codes, both ends of the range included."""

    def make(*shape: int, scale: float = 0.02, zero_point: int = 50) -> torch.Tensor:
        stored = torch.randint(0, 256, shape, dtype=torch.uint8)
        stored.view(-1)[:2] = torch.tensor([0, 255], dtype=torch.uint8)
        return torch._make_per_tensor_quantized_tensor(stored, scale, zero_point)

    return make


@pytest.fixture
def int8() -> Callable[..., torch.Tensor]:
    """A qint8 weight of random codes, per tensor or per channel along ``axis``."""

    def make(*shape: int, axis: int | None = None) -> torch.Tensor:
        weight = torch.randn(*shape)
        if axis is None:
            return torch.quantize_per_tensor(weight, 0.02, 0, torch.qint8)
        scales = torch.linspace(0.01, 0.03, shape[axis], dtype=torch.double)
        return torch.quantize_per_channel(weight, scales, torch.zeros(shape[axis], dtype=torch.long), axis, torch.qint8)

    return make


@pytest.fixture
def ready(int8: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """A module of a class name of ``quantized`` or ``intrinsic.quantized``, with random weights, 4 channels to 8."""

    def make(name: str, *, bias: bool = True, axis: int | None = None, engine: str | None = None, **more: Any) -> Any:
        cls = getattr(quantized, name, None) or getattr(nniq, name)
        if "Linear" in name:
            first = (4, 8, 0.1, bias) if name == "LinearLeakyReLU" else (4, 8, bias)
            module = cls(*first, engine=engine, **more)
        else:
            module = cls(4, 8, 3, padding=1, bias=bias, engine=engine, **more)
        module.set_weight_bias(int8(*module.weight().shape, axis=axis), torch.randn(8) if bias else None)
        module.scale, module.zero_point = 0.11, 60
        return module

    return make


@pytest.fixture
def inputs(codes: Callable[..., torch.Tensor]) -> Callable[[str], tuple[torch.Tensor, ...]]:
    """Inputs that suit the module ``ready`` makes of this name."""

    def make(name: str) -> tuple[torch.Tensor, ...]:
        if "Linear" in name:
            return (codes(5, 4),)
        x = codes(2, 4, *[6] * int(name[-2]))
        return (x, codes(2, 8, 6, 6)) if "Add" in name else (x,)

    return make


class Observed:
    """The interface of an observer that has seen its data, for modules that want to be converted."""

    def __init__(self, scale: Any, zero_point: Any, dtype: torch.dtype = torch.quint8, **more: Any) -> None:
        self.qscheme, self.ch_axis = torch.per_tensor_affine, 0
        self.quant_min, self.quant_max = (-128, 127) if dtype == torch.qint8 else (0, 255)
        self.dtype, self.calls = dtype, 0
        self._qparams = torch.as_tensor(scale), torch.as_tensor(zero_point)
        self.__dict__.update(more)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._qparams


@pytest.fixture
def observed() -> type[Observed]:
    """The stand-in class for observers."""
    return Observed
