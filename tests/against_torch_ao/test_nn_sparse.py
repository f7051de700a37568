"""``qfx.nn.sparse.quantized`` beside the original's: same signatures, same bits."""

from __future__ import annotations

import inspect

import pytest
import torch

from qfx.kernels.packing import packed_by
from qfx.nn.sparse import quantized

ao_sparse = pytest.importorskip("torch.ao.nn.sparse.quantized")

CLASSES = [
    (quantized.Linear, ao_sparse.Linear, "fbgemm"),
    (quantized.dynamic.Linear, ao_sparse.dynamic.Linear, "qnnpack"),
]


@pytest.mark.parametrize(("ours", "theirs", "engine"), CLASSES)
def test_the_same_parameters(ours, theirs, engine):
    for method in ("__init__", "from_float", "set_weight_bias", "forward"):
        own, original = (inspect.signature(getattr(cls, method)).parameters.values() for cls in (ours, theirs))
        assert [(p.name, p.default) for p in own] == [(p.name, p.default) for p in original]


@pytest.mark.parametrize(("ours", "theirs", "engine"), CLASSES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_bits_and_state(ours, theirs, engine, bias):
    weight = torch.quantize_per_tensor(torch.randn(8, 16), 0.02, 0, torch.qint8)
    with packed_by(engine):
        modules = [cls(16, 8, 1, 4, bias) for cls in (ours, theirs)]
        x = torch.randn(3, 16)
        for module in modules:
            module.set_weight_bias(weight, torch.ones(8) if bias else None, 1, 4)
            module.scale, module.zero_point = 0.1, 128
        if engine == "fbgemm":
            x = torch.quantize_per_tensor(x, 0.03, 128, torch.quint8)
        found, expected = (module(x) for module in modules)
        assert torch.equal(*(y.int_repr() if y.is_quantized else y for y in (found, expected)))
        assert repr(modules[0]) == repr(modules[1])
        state = modules[1].state_dict()
        assert list(modules[0].state_dict()) == list(state)
        # The original cannot load what it saves: it looks for a key it does not write, or takes a word for a number.
        modules[0].load_state_dict(state, strict=True)
        with pytest.raises((KeyError, ValueError)):
            modules[1].load_state_dict(state)
    assert set(dir(modules[1])) - set(dir(modules[0])) == set()
