"""An LSTM observed part by part: gates and states in 16 bits, the rest in 8, as a backend's config allows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.api.lstm_parts import observe_lstm_parts, reference_lstm_of_parts
from qfx.nn import quantizable, quantized
from qfx.nn.errors import ModuleTypeError

FIXED = qfx.FixedQParamsObserver.with_args
PARTS: dict[str, Any] = {
    "linear_output_obs_ctr": FIXED(scale=2**-11, zero_point=2**15, dtype=torch.qint32),
    "sigmoid_obs_ctr": FIXED(scale=2**-16, zero_point=0, dtype=torch.qint32),
    "tanh_obs_ctr": FIXED(scale=2**-15, zero_point=2**15, dtype=torch.qint32),
    "cell_state_obs_ctr": FIXED(scale=2**-11, zero_point=0, dtype=torch.qint32),
    "hidden_state_obs_ctr": FIXED(scale=2**-7, zero_point=2**7, dtype=torch.quint8),
}
EXPECTED: dict[str, tuple[float | None, int | None, torch.dtype]] = {
    "igates": (None, None, torch.quint8),
    "hgates": (None, None, torch.quint8),
    "add": (2**-11, 2**15, torch.qint32),
    "input_gate": (2**-16, 0, torch.qint32),
    "forget_gate": (2**-16, 0, torch.qint32),
    "cell_gate": (2**-15, 2**15, torch.qint32),
    "output_gate": (2**-16, 0, torch.qint32),
    "mul": (2**-11, 0, torch.qint32),
    "mul_1": (2**-11, 0, torch.qint32),
    "add_1": (2**-11, 0, torch.qint32),
    "mul_2": (2**-7, 2**7, torch.quint8),
}
STATES = (torch.rand(5, 3, 10), torch.rand(1, 3, 8), torch.randn(1, 3, 8))


def backend() -> qfx.BackendConfig:
    found = qfx.get_qnnpack_backend_config()
    wide = qfx.DTypeConfig(input_dtype=torch.qint32, output_dtype=torch.qint32)
    for config in found.configs:
        if config.pattern in [nn.Sigmoid, nn.Tanh, torch.add, torch.mul]:
            config.add_dtype_config(wide)
    return found


class OwnLSTM(quantizable.LSTM):
    @classmethod
    def from_float(cls, other: Any, qconfig: Any = None, split_gates: bool = False) -> Any:
        return observe_lstm_parts(other, STATES, backend(), split_gates=split_gates, **PARTS)


class OwnQuantizedLSTM(quantized.LSTM):
    @classmethod
    def from_observed(cls, other: Any) -> Any:
        return reference_lstm_of_parts(other, backend())


class Net(nn.Module):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(10, 8, **kwargs)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        return self.lstm(x, (h, c))


def prepared(model: nn.Module) -> Any:
    custom = qfx.PrepareCustomConfig().set_float_to_observed_mapping(nn.LSTM, OwnLSTM)
    mapping = qfx.get_default_qconfig_mapping("qnnpack")
    return qfx.prepare_fx(model.eval(), mapping, STATES, custom, backend_config=backend())


def converted(observed: Any) -> Any:
    custom = qfx.ConvertCustomConfig().set_observed_to_quantized_mapping(quantizable.LSTM, OwnQuantizedLSTM)
    return qfx.convert_to_reference_fx(observed, custom)


def test_each_part_is_quantized_as_it_was_observed() -> None:
    observed = prepared(Net())
    observed(*STATES)
    cell = converted(observed).lstm.layers[0].layer_fw.cell
    met = set()
    for node in cell.graph.nodes:
        if node.name not in EXPECTED:
            continue
        met.add(node.name)
        assert all(source.target == "dequantize" for source in node.args)
        scale, zero_point, dtype = EXPECTED[node.name]
        for user in node.users:
            assert user.target is torch.quantize_per_tensor
            assert user.args[-1] is dtype
            assert scale is None or getattr(cell, user.args[1].target) == scale
            assert zero_point is None or getattr(cell, user.args[2].target) == zero_point
    assert met == set(EXPECTED)


@pytest.mark.parametrize("kwargs", [{}, {"num_layers": 2}, {"bidirectional": True}, {"batch_first": True}])
def test_it_computes_what_the_float_one_does(kwargs: dict[str, Any]) -> None:
    model = Net(**kwargs)
    count = kwargs.get("num_layers", 1) * (2 if "bidirectional" in kwargs else 1)
    x = STATES[0].transpose(0, 1) if "batch_first" in kwargs else STATES[0]
    inputs = (x, torch.rand(count, 3, 8), torch.randn(count, 3, 8))
    observed = prepared(model)
    expected, seen = model(*inputs), observed(*inputs)
    torch.testing.assert_close(seen[0], expected[0])
    found = converted(observed)(*inputs)
    for one, other in zip((expected[0], *expected[1]), (found[0], *found[1]), strict=True):
        assert not other.is_quantized
        assert float((one - other).detach().abs().max()) < 0.1


def test_split_gates_are_summed_one_by_one() -> None:
    float_lstm = nn.LSTM(10, 8).eval()
    float_lstm.qconfig = qfx.get_default_qconfig("qnnpack")
    made = observe_lstm_parts(float_lstm, STATES, backend(), split_gates=True, **PARTS)
    cell: Any = made.layers[0].layer_fw.cell
    fixed = [m for m in cell.children() if isinstance(m, qfx.FixedQParamsObserver) and m.scale == 2**-11]
    assert len(fixed) == 4 + 3
    expected, _ = float_lstm(*STATES[:1], STATES[1:])
    torch.testing.assert_close(made(STATES[0], STATES[1:])[0], expected)


def test_the_float_and_the_observed_one_stay_as_they_are() -> None:
    float_lstm = nn.LSTM(10, 8).eval()
    float_lstm.qconfig = qfx.get_default_qconfig("qnnpack")
    before = {name: value.clone() for name, value in float_lstm.state_dict().items()}
    made = observe_lstm_parts(float_lstm, STATES, backend(), **PARTS)
    made(STATES[0], STATES[1:])
    cell = made.layers[0].layer_fw.cell
    reference_lstm_of_parts(made)
    assert made.layers[0].layer_fw.cell is cell
    assert type(made) is quantizable.LSTM
    assert all(torch.equal(before[name], value) for name, value in float_lstm.state_dict().items())


def test_what_has_no_parts_is_refused() -> None:
    with pytest.raises(ModuleTypeError, match=r"made of an nn\.LSTM with a qconfig, got LSTM; set one first"):
        observe_lstm_parts(nn.LSTM(2, 2), STATES)
    float_lstm = nn.LSTM(10, 8).eval()
    float_lstm.qconfig = qfx.get_default_qconfig("qnnpack")
    with pytest.raises(ModuleTypeError, match="are LSTMCell, not observed in parts"):
        reference_lstm_of_parts(quantizable.LSTM.from_float(float_lstm))
