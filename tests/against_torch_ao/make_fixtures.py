"""Writes what the original saved, an input and what it made of it: states to ``tests/nn/fixtures/*.pt``, whole
modules to ``tests/nn/fixtures/modules/*.pt``.

Run once, while the original exists: ``python tests/against_torch_ao/make_fixtures.py [states|modules]``. The files are
read by ``tests/nn/test_original_states.py`` for as long as somebody has such states.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.ao import quantization
from torch.ao.nn import quantizable, quantized

FOLDER = Path(__file__).parents[1] / "nn" / "fixtures"


def int8(*shape: int, axis: int | None = None) -> torch.Tensor:
    if axis is None:
        return torch.quantize_per_tensor(torch.randn(*shape), 0.02, 0, torch.qint8)
    scales, zeros = torch.rand(shape[axis]) * 0.02 + 0.01, torch.zeros(shape[axis], dtype=torch.long)
    return torch.quantize_per_channel(torch.randn(*shape), scales, zeros, axis, torch.qint8)


def static(cls: Any, *arguments: Any, axis: int | None = None) -> nn.Module:
    module = cls(*arguments)
    module.set_weight_bias(int8(*module.weight().shape, axis=axis), torch.randn(arguments[1]))
    module.scale, module.zero_point = 0.05, 60
    return module


def table(cls: Any, dtype: torch.dtype) -> nn.Module:
    weight = torch.quantize_per_channel(torch.randn(10, 12), torch.rand(10) * 0.2 + 0.1, torch.rand(10) * 3, 0, dtype)
    module = cls(10, 12, dtype=dtype)
    module.set_weight(weight)
    return module


def dynamic(float_module: nn.Module, qconfig: Any) -> nn.Module:
    float_module.qconfig = qconfig
    return getattr(quantized.dynamic, type(float_module).__name__).from_float(float_module)


def lstm() -> nn.Module:
    float_module = nn.LSTM(4, 5).eval()
    float_module.qconfig = quantization.get_default_qconfig("fbgemm")
    observed = quantizable.LSTM.from_float(float_module)
    observed(torch.randn(6, 3, 4))
    return quantized.LSTM.from_observed(observed)


def codes(*shape: int) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.randn(*shape), 0.02, 100, torch.quint8)


def cases() -> Iterator[tuple[str, nn.Module, tuple[torch.Tensor, ...]]]:
    yield "linear", static(quantized.Linear, 4, 8, axis=0), (codes(3, 4),)
    yield "conv2d", static(quantized.Conv2d, 4, 8, 3, axis=0), (codes(2, 4, 5, 5),)
    for bits, dtype in (("8", torch.quint8), ("4", torch.quint4x2)):
        yield f"embedding_{bits}bit", table(quantized.Embedding, dtype), (torch.tensor([[1, 2], [5, 9]]),)
        yield f"embedding_bag_{bits}bit", table(quantized.EmbeddingBag, dtype), (torch.tensor([[1, 2], [5, 9]]),)
    int8_config, half_config = quantization.default_dynamic_qconfig, quantization.float16_dynamic_qconfig
    for kind, qconfig in (("int8", int8_config), ("half", half_config)):
        yield f"dynamic_linear_{kind}", dynamic(nn.Linear(4, 8), qconfig), (torch.randn(3, 4),)
        yield f"dynamic_lstm_{kind}", dynamic(nn.LSTM(4, 5, bidirectional=True), qconfig), (torch.randn(6, 3, 4),)
        yield f"dynamic_gru_{kind}", dynamic(nn.GRU(4, 5), qconfig), (torch.randn(6, 3, 4),)
        for cell in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
            name = f"dynamic_{cell.__name__.lower()}_{kind}"
            yield name, dynamic(cell(4, 5), qconfig), (torch.randn(3, 4),)
    yield "lstm", lstm(), (codes(6, 3, 4),)


def converted(model: nn.Module, pairs: list[list[str]], example: torch.Tensor) -> nn.Module:
    model = quantization.fuse_modules(quantization.QuantWrapper(model).eval(), pairs)
    model.qconfig = quantization.default_qconfig
    prepared = quantization.prepare(model)
    prepared(example)
    return quantization.convert(prepared)


def reference(cls: Any, *arguments: Any, axis: int | None = None) -> nn.Module:
    qparams: dict[str, Any] = {"dtype": torch.qint8, "qscheme": torch.per_tensor_affine, "scale": 0.1, "zero_point": 3}
    if axis is not None:
        qparams |= {
            "qscheme": torch.per_channel_affine,
            "scale": torch.rand(arguments[1]) + 0.1,
            "zero_point": torch.zeros(arguments[1], dtype=torch.int32),
            "axis": axis,
        }
    return cls(*arguments, weight_qparams=qparams)


def modules() -> Iterator[tuple[str, nn.Module, tuple[torch.Tensor, ...]]]:
    """Whole modules, pickled: how a model was once saved by those who did not read the notes."""
    yield from cases()
    yield "conv1d", static(quantized.Conv1d, 4, 8, 3), (codes(2, 4, 5),)
    yield "conv_transpose2d", transposed(), (codes(2, 4, 5, 5),)
    image = torch.rand(2, 4, 6, 6)
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.ReLU(), nn.BatchNorm2d(4), nn.Hardswish(), nn.ELU(),
        nn.LeakyReLU(), nn.Sigmoid(), nn.GroupNorm(2, 4), nn.LayerNorm(6), nn.Dropout(), nn.Linear(6, 3), nn.ReLU(),
    )  # fmt: skip
    pairs = [["module.0", "module.1"], ["module.10", "module.11"]]
    yield "converted", converted(layers, pairs, image), (image,)
    for cls in (
        quantization.HistogramObserver, quantization.PerChannelMinMaxObserver, quantization.FakeQuantize,
        quantization.FusedMovingAvgObsFakeQuantize,
    ):  # fmt: skip
        observer = cls()
        observer(torch.rand(3, 4))
        yield cls.__name__, observer.apply(quantization.disable_observer), (torch.rand(3, 4),)
    yield "reference_linear", reference(quantized.reference.Linear, 4, 8, axis=0), (torch.rand(3, 4),)
    yield "reference_conv2d", reference(quantized.reference.Conv2d, 4, 8, 3), (torch.rand(1, 4, 5, 5),)
    yield "reference_embedding", quantized.reference.Embedding(10, 12), (torch.tensor([[1, 2], [5, 9]]),)
    yield "reference_lstm", quantized.reference.LSTM(4, 5), (torch.rand(6, 3, 4),)


def transposed() -> nn.Module:
    module = quantized.ConvTranspose2d(4, 8, 3, stride=2, output_padding=1)
    module.set_weight_bias(int8(4, 8, 3, 3), torch.randn(8))
    module.scale, module.zero_point = 0.05, 60
    return module


def plain(result: Any) -> Any:
    """Codes instead of quantized tensors, so that the file needs none beyond the state."""
    if isinstance(result, tuple):
        return tuple(plain(part) for part in result)
    return result.int_repr() if result.is_quantized else result


def main(kinds: list[str]) -> None:
    torch.backends.quantized.engine = "fbgemm"
    for kind, made, folder in (("states", cases, FOLDER), ("modules", modules, FOLDER / "modules")):
        if kinds and kind not in kinds:
            continue
        torch.manual_seed(0)
        folder.mkdir(exist_ok=True)
        for name, module, inputs in made():
            saved = {kind[:-1]: module if kind == "modules" else module.state_dict(), "inputs": inputs}
            torch.save(saved | {"expected": plain(module(*inputs))}, folder / f"{name}.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
