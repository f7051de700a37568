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


def _flat(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    return [] if result is None else [tensor for part in result for tensor in _flat(part)]


@pytest.fixture
def same_bits() -> Callable[[Any, Any], bool]:
    """Whether two results, tensors in nested tuples or packed sequences, are equal bit for bit."""
    return lambda a, b: all(torch.equal(x, y) for x, y in zip(_flat(a), _flat(b), strict=True))


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
