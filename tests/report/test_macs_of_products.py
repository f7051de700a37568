"""Products that are no plain layer: matmul and its relatives, attention, recurrence; and what cannot be counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

BATCH = 3


class Attention(nn.Module):
    """Two heads, by hand or by torch's function; the projections may share one matrix product over (batch * heads)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (f(x).view(batch, length, 2, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.kind == "function":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.kind == "matmul":
            y = torch.softmax(q @ k.transpose(-2, -1) / 8**0.5, -1).matmul(v)
        elif self.kind == "einsum":
            scores = torch.softmax(torch.einsum("bhqd, bhkd -> bhqk", q, k), -1)
            y = torch.einsum("bhqk,bhkd->bhqd", scores, v)
        else:
            q, k, v = (part.reshape(batch * 2, length, 8) for part in (q, k, v))
            y = torch.baddbmm(q, torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v)
            y = y.view(batch, 2, length, 8)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


@pytest.mark.parametrize("projections", ["integer", "float"])
@pytest.mark.parametrize("kind", ["function", "matmul", "einsum", "bmm"])
def test_attention(kind: str, projections: str, between: Any, calibrated: Any, macs: Any, torchs_count: Any) -> None:
    """With float projections all shapes but the input's and the result's have to be worked out."""
    model, x = Attention(kind), torch.randn(BATCH, 5, 16)
    mapping = qfx.get_default_qconfig_mapping("x86")
    if projections == "float":
        model = between(model)
        mapping.set_module_name("layer", None)
    expected = torchs_count(model, x)
    assert expected == 4 * 5 * 16 * 16 + 2 * 5 * 5 * 16
    prepared = calibrated(model, x, mapping=mapping)
    for target in ("native", "onednn"):
        int8 = qfx.convert_fx(prepared, target=target)
        found = qfx.summary(int8)
        assert sum(macs(int8).values()) == expected
        assert found.unknown_macs == 0
        assert found.coverage_macs == (0 if projections == "float" else 4 * 5 * 16 * 16 / expected)


class Rows(nn.Module):
    """A product with a vector or a matrix of its own, between quantized values."""

    def __init__(self, call: Callable[..., Any], *shape: int) -> None:
        super().__init__()
        self.call, self.other = call, nn.Parameter(torch.randn(*shape))
        self.before, self.after = nn.Linear(8, 8), nn.Hardswish()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.call(self.before(x), self.other))


@pytest.mark.parametrize(
    ("call", "shape", "each"),
    [
        (torch.matmul, (8,), 5 * 8),
        (torch.matmul, (8, 7), 5 * 8 * 7),
        (lambda x, y: x.matmul(y), (8, 7), 5 * 8 * 7),
        (lambda x, y: torch.einsum("...ij,jk->...ik", x, y), (8, 7), None),
        (lambda x, y: torch.tensordot(x, y, dims=1), (8, 7), None),
        (lambda x, y: F.bilinear(x, x, y), (7, 8, 8), 5 * 7 * 8 * 8),
        (lambda x, y: torch.einsum("ntj->nt", x)[..., None] * y, (8,), 0),  # sums, and a product of elements
        (torch.mul, (8,), 0),
    ],
    ids=["vector", "matrix", "method", "ellipsis", "tensordot", "bilinear", "sum", "mul"],
)
def test_other_products(
    call: Callable[..., Any], shape: tuple[int, ...], each: int | None, calibrated: Any, macs: Any
) -> None:
    int8 = qfx.convert_fx(calibrated(Rows(call, *shape), torch.randn(BATCH, 5, 8)))
    expected = [5 * 8 * 8] if each == 0 else [5 * 8 * 8, each]
    assert list(macs(int8).values()) == expected
    assert qfx.summary(int8).unknown_macs == (each is None)


# -- layers that hold several matrices -----------------------------------------------------------------------------
class Sequence(nn.Module):
    """A recurrent layer or torch's attention, then a linear layer."""

    def __init__(self, layer: nn.Module, width: int, attends: bool = False) -> None:
        super().__init__()
        self.layer, self.fc, self.attends = layer, nn.Linear(width, 2), attends

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.layer(x, x, x) if self.attends else self.layer(x)
        return self.fc(y)


@pytest.mark.parametrize(
    ("layer", "width", "attends"),
    [
        (lambda: nn.LSTM(16, 12, batch_first=True), 12, False),
        (lambda: nn.LSTM(16, 12, 2, bidirectional=True, proj_size=5, batch_first=True), 10, False),
        (lambda: nn.GRU(16, 12, batch_first=True), 12, False),
        (lambda: nn.RNN(16, 12, batch_first=True), 12, False),
        (lambda: nn.MultiheadAttention(16, 2, batch_first=True), 16, True),
        (lambda: nn.MultiheadAttention(16, 2, batch_first=True, add_bias_kv=True, add_zero_attn=True), 16, True),
    ],
    ids=["lstm", "bidirectional", "gru", "rnn", "attention", "attention with a bias"],
)
def test_layers_that_stay_whole(
    layer: Callable[[], nn.Module],
    width: int,
    attends: bool,
    monkeypatch: pytest.MonkeyPatch,
    calibrated: Any,
    macs: Any,
    torchs_count: Any,
) -> None:
    model, x = Sequence(layer(), width, attends).train(), torch.randn(BATCH, 5, 16)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # the counter cannot see into its recurrent layers
    expected = torchs_count(model, x)  # in training mode: in the other, attention has a kernel of its own
    int8 = qfx.convert_fx(calibrated(model, x))
    assert sum(macs(int8).values()) == expected
    linear = 5 * width * 2
    assert qfx.summary(int8).coverage_macs == linear / expected


def test_a_long_short_term_memory_is_no_small_part(calibrated: Any, macs: Any) -> None:
    int8 = qfx.convert_fx(calibrated(Sequence(nn.LSTM(64, 64, batch_first=True), 64), torch.randn(2, 5, 64)))
    assert macs(int8) == {"layer": 5 * 2 * 4 * 64 * 64, "fc": 5 * 64 * 2}
    assert "0.4% of multiply-accumulates" in str(qfx.summary(int8))
    assert "not counted" not in str(qfx.summary(int8))


class Looks(nn.Module):
    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table, self.fc = table, nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.table(x))


@pytest.mark.parametrize("table", [nn.Embedding, nn.EmbeddingBag])
def test_a_look_up_multiplies_nothing(table: Any, calibrated: Any, macs: Any, torchs_count: Any) -> None:
    x = torch.randint(0, 10, (BATCH, 5))
    int8 = qfx.convert_fx(calibrated(Looks(table(10, 16)), x))
    assert list(macs(int8).values()) == [torchs_count(Looks(table(10, 16)), x)]
    assert qfx.summary(int8).coverage_macs == 1.0


# -- what is not known is said --------------------------------------------------------------------------------------
def my_own(x: torch.Tensor) -> torch.Tensor:
    return x @ x.transpose(-2, -1)


torch.fx.wrap("my_own")


class Mine(nn.Module):
    """A module torch does not know; kept whole, nobody sees what it computes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class LSTM(Mine):
    """Called like a layer of torch's, but not one."""


class Foreign(nn.Module):
    def __init__(self, middle: Any) -> None:
        super().__init__()
        self.before, self.after, self.middle = nn.Linear(8, 8), nn.Linear(8, 8), middle

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        return self.after(my_own(x) if self.middle is None else self.middle(x))


@pytest.mark.parametrize(
    ("middle", "op"),
    [
        (None, "my_own"),
        (Mine(), "Mine"),
        (LSTM(), "LSTM"),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), "TransformerEncoderLayer"),
    ],
    ids=["function", "module", "namesake", "torch's"],
)
def test_code_nobody_looks_into_is_not_counted(middle: Any, op: str, calibrated: Any) -> None:
    whole = [kind for kind in (Mine, LSTM) if isinstance(middle, kind)]
    config = qfx.PrepareCustomConfig().set_non_traceable_module_classes(whole)
    int8 = qfx.convert_fx(calibrated(Foreign(middle), torch.randn(BATCH, 8, 8), prepare_custom_config=config))
    assert [entry.op for entry in qfx.explain(int8) if entry.macs is None] == [op]
    found = qfx.summary(int8)
    assert (found.unknown_macs, found.uncounted) == (1, {op: 1})
    assert f"not counted: 1 node, as nothing tells how much they multiply\n     1  {op}" in str(found)


@pytest.mark.parametrize("target", ["native", "onednn", "reference"])
def test_shapes_nobody_saw_are_not_counted(target: str, between: Any, macs: Any) -> None:
    mapping = qfx.get_default_qconfig_mapping("x86")
    prepared = qfx.prepare_fx(between(nn.Linear(8, 8)).eval(), mapping, (torch.randn(2, 8),))
    assert macs(prepared) == {"layer": None}
    with pytest.warns(UserWarning, match="doubtful"):
        int8 = qfx.convert_fx(prepared, target=target)
    assert list(macs(int8).values()) == [None]
    found = qfx.summary(int8)
    assert (found.coverage_macs, found.unknown_macs) == (None, 1)
    assert "unknown multiply-accumulates" in str(found)


def test_the_share_is_of_what_was_counted(calibrated: Any) -> None:
    text = str(qfx.summary(qfx.convert_fx(calibrated(Foreign(None), torch.randn(BATCH, 8, 8)))))
    assert "100.0% of the multiply-accumulates that are counted" in text


def test_a_model_without_products_says_so(calibrated: Any) -> None:
    found = qfx.summary(qfx.convert_fx(calibrated(nn.Sequential(nn.Hardswish()), torch.randn(2, 8))))
    assert (found.coverage_macs, found.unknown_macs) == (None, 0)
    assert "no multiply-accumulates" in str(found)


# -- kernels of one's own ---------------------------------------------------------------------------------------------
def my_kernel(x: torch.Tensor, *_: Any) -> torch.Tensor:
    return x


@qfx.pattern
def quantized_gelu(x: Any, x_scale: Any, x_zero_point: Any, scale: Any, zero_point: Any) -> Any:
    return qfx.ops.quantize(qfx.ops.gelu(qfx.ops.dequantize(x, x_scale, x_zero_point)), scale, zero_point)


@qfx.pattern
def quantized_matmul(x: Any, xs: Any, xz: Any, y: Any, ys: Any, yz: Any, scale: Any, zero_point: Any) -> Any:
    product = qfx.ops.matmul(qfx.ops.dequantize(x, xs, xz), qfx.ops.dequantize(y, ys, yz))
    return qfx.ops.quantize(product, scale, zero_point)


@qfx.rule(quantized_gelu)
def own_gelu(m: Any, g: Any) -> Any:
    return g.integer(g.call(my_kernel, m.x), "my gelu")


@qfx.rule(quantized_matmul)
def own_matmul(m: Any, g: Any) -> Any:
    return g.integer(g.call(my_kernel, m.x, m.y), "my matmul")


def test_a_kernel_of_ones_own_multiplies_where_what_it_stands_for_does(calibrated: Any) -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(8, 8), nn.GELU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.act(self.fc(x))
            return torch.matmul(x, x)

    backend = qfx.get_default_backend_config()
    backend.set_backend_pattern_config(
        qfx.BackendPatternConfig(nn.GELU).add_dtype_config(
            qfx.DTypeConfig(input_dtype=torch.quint8, output_dtype=torch.quint8)
        )
    )
    prepared = calibrated(Products(), torch.randn(BATCH, 8, 8), backend_config=backend)
    own = qfx.Pass("own", (own_gelu, own_matmul))
    int8 = qfx.convert_fx(prepared, target="onednn", passes={"lower": [own]})
    by_kernel = {entry.kernel: entry.macs for entry in qfx.explain(int8) if entry.status == "integer"}
    assert by_kernel == {"onednn.linear": 8 * 8 * 8, "my gelu": 0, "my matmul": None}
