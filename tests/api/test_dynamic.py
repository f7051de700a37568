"""Dynamic and weight-only quantization in FX mode."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves

import qfx
from qfx.errors import ConfigError, DowngradeError
from qfx.nn import intrinsic, quantized
from qfx.nn.intrinsic.quantized import dynamic as fused
from qfx.nn.quantized import dynamic, reference

CONFIGS = [qfx.default_dynamic_qconfig, qfx.per_channel_dynamic_qconfig, qfx.float16_dynamic_qconfig]


class Linears(nn.Module):
    """A layer with a relu, one without, one as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8)
        self.w, self.b = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(F.linear(self.second(self.relu(self.first(x))), self.w, self.b))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRU(4, 4, 2, bidirectional=True), nn.LSTM(8, 4)
        self.rnn, self.cell = nn.RNNCell(4, 4), nn.LSTMCell(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y, _ = self.gru(x)
        z, (h, _) = self.lstm(y)
        return self.cell(self.rnn(z[0], h[0]))


class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.bags = nn.Embedding(10, 12), nn.EmbeddingBag(10, 12, include_last_offset=True, mode="sum")
        self.fc = nn.Linear(12, 2)

    def forward(self, i: torch.Tensor, offsets: torch.Tensor) -> Any:
        return self.fc(self.words(i)), self.bags(i, offsets)


WORDS = (torch.tensor([1, 2, 3, 4]), torch.tensor([0, 2, 4]))


def _converted(model: nn.Module, mapping: Any, *x: torch.Tensor) -> tuple[Any, Any]:
    prepared = qfx.prepare_fx(model.eval(), mapping, x)
    prepared(*x)
    return qfx.convert_fx(prepared), qfx.convert_to_reference_fx(prepared)


def _calls(gm: Any) -> list[str]:
    return [str(node.target) for node in gm.graph.nodes if node.op.startswith("call")]


@pytest.mark.parametrize("qconfig", CONFIGS)
def test_linear_layers_quantize_their_input_in_every_call(qconfig: Any) -> None:
    model, x = Linears(), torch.randn(3, 6)
    made, plain = _converted(model, qfx.QConfigMapping().set_global(qconfig), x)
    half = qconfig is qfx.float16_dynamic_qconfig
    assert _calls(made) == ["first", "second", f"quantized.linear_relu_dynamic{'_fp16' if half else ''}"]
    assert (type(made.first), type(made.second)) == (fused.LinearReLU, dynamic.Linear)
    assert (type(plain.first), type(plain.second)) == (intrinsic.LinearReLU, reference.Linear)
    assert (made(100 * x) - model(100 * x)).abs().max() < 5  # a hundred times the range has a hundred times the scale
    assert (made(x) - plain(x)).abs().max() < 0.05
    assert (made(x) - model(x)).abs().max() < 0.1


@pytest.mark.parametrize("qconfig", CONFIGS)
def test_recurrent_layers_are_swapped_as_a_whole(qconfig: Any) -> None:
    model, x = Recurrent(), torch.randn(3, 2, 4)
    made, plain = _converted(model, qfx.QConfigMapping().set_global(qconfig), x)
    kinds = [type(made.gru), type(made.lstm), type(made.rnn), type(made.cell)]
    assert kinds == [dynamic.GRU, dynamic.LSTM, dynamic.RNNCell, dynamic.LSTMCell]
    assert isinstance(plain.lstm, reference.LSTM)
    for found in (made, plain):
        assert all(
            (a - b).abs().max() < 0.05 for a, b in zip(tree_leaves(found(x)), tree_leaves(model(x)), strict=True)
        )


@pytest.mark.parametrize(
    "qconfig",
    [qfx.float_qparams_weight_only_qconfig, qfx.float_qparams_weight_only_qconfig_4bit],
    ids=["8 bit", "4 bit"],
)
def test_tables_are_quantized_in_their_weights_beside_static_layers(qconfig: Any) -> None:
    mapping = qfx.get_default_qconfig_mapping("x86")
    for kind in (nn.Embedding, nn.EmbeddingBag):
        mapping.set_object_type(kind, qconfig)
    model = Tables()
    made, plain = _converted(model, mapping, *WORDS)
    assert [type(made.words), type(made.bags), type(made.fc)] == [
        quantized.Embedding,
        quantized.EmbeddingBag,
        quantized.Linear,
    ]
    assert isinstance(plain.words, reference.Embedding)
    assert made.words.weight().dtype is qconfig.weight().dtype
    for a, b, c in zip(made(*WORDS), plain(*WORDS), model(*WORDS), strict=True):
        assert (a - b).abs().max() < 0.05
        assert (a - c).abs().max() < 0.7


def test_a_dynamic_layer_among_static_ones_reads_what_they_give() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 7)), torch.randn(8, 4)
    mapping = qfx.get_default_qconfig_mapping("x86").set_module_name("1", qfx.default_dynamic_qconfig)
    made, plain = _converted(model, mapping, x)
    kinds = [type(made.get_submodule(name)) for name in "012"]
    assert kinds == [quantized.Linear, dynamic.Linear, quantized.Linear]
    assert (made(x) - plain(x)).abs().max() < 0.05
    assert (made(x) - model(x)).abs().max() < 0.1


@pytest.mark.parametrize(
    ("model", "mapping", "x"),
    [
        (Linears(), qfx.QConfigMapping().set_global(qfx.default_dynamic_qconfig), (torch.randn(3, 6),)),
        (Linears(), qfx.QConfigMapping().set_global(qfx.float16_dynamic_qconfig), (torch.randn(3, 6),)),
        (Recurrent(), qfx.QConfigMapping().set_global(qfx.default_dynamic_qconfig), (torch.randn(3, 2, 4),)),
        (Tables(), qfx.QConfigMapping().set_global(qfx.float_qparams_weight_only_qconfig), WORDS),
    ],
    ids=["int8", "fp16", "recurrent", "tables"],
)
def test_copies_pickles_and_states_compute_the_same(model: nn.Module, mapping: Any, x: Any) -> None:
    made, _ = _converted(model, mapping, *x)
    expected = tree_leaves(made(*x))
    again, _ = _converted(copy.deepcopy(model), mapping, *x)
    again.load_state_dict(made.state_dict())
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), again):
        assert all(map(torch.equal, tree_leaves(other(*x)), expected))


def test_a_shared_layer_is_swapped_once_under_all_its_names() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = self.a

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    x = torch.randn(2, 4)
    made, _ = _converted(Shared(), qfx.QConfigMapping().set_global(qfx.default_dynamic_qconfig), x)
    assert type(made.a) is dynamic.Linear
    assert (
        made.get_submodule(next(str(n.target) for n in reversed(made.graph.nodes) if n.op == "call_module")) is made.a
    )


def test_explain_names_the_kernels() -> None:
    made, _ = _converted(Linears(), qfx.QConfigMapping().set_global(qfx.default_dynamic_qconfig), torch.randn(3, 6))
    assert [(e.status, e.kernel) for e in qfx.explain(made) if e.kernel] == [
        ("integer", "quantized.dynamic.LinearReLU"),
        ("integer", "quantized.dynamic.Linear"),
        ("integer", "quantized.linear_relu_dynamic (x86)"),
    ]


def test_the_onednn_target_refuses_them() -> None:
    prepared = qfx.prepare_fx(
        Linears().eval(), qfx.QConfigMapping().set_global(qfx.default_dynamic_qconfig), (torch.randn(3, 6),)
    )
    with pytest.raises(ConfigError, match=r"is quantized dynamically, .* the target 'onednn' has no kernel for that"):
        qfx.convert_fx(prepared, target="onednn")


def test_half_floats_everywhere_are_a_downgrade_the_default_backend_says() -> None:
    with pytest.raises(DowngradeError, match="float16"):
        qfx.prepare_fx(
            Linears().eval(),
            qfx.QConfigMapping().set_global(qfx.float16_static_qconfig),
            (torch.randn(3, 6),),
            strict=True,
        )


def test_tables_train_with_rounded_weights() -> None:
    mapping = qfx.QConfigMapping().set_object_type(nn.Embedding, qfx.default_embedding_qat_qconfig)
    model = nn.Sequential(nn.Embedding(10, 12)).train()
    prepared = qfx.prepare_qat_fx(model, mapping, (WORDS[0],))
    assert type(prepared.get_submodule("0")) is qfx.nn.qat.Embedding
    prepared(WORDS[0]).sum().backward()
    made = qfx.convert_fx(prepared.eval())
    assert type(made.get_submodule("0")) is quantized.Embedding
    assert (made(WORDS[0]) - prepared(WORDS[0])).abs().max() < 1e-6
