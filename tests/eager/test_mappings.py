"""The tables of eager mode: a getter gives a copy of its table, and what is in it is what conversion makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qfx


@pytest.mark.parametrize(
    ("table", "getter"),
    [
        ("DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS", "get_default_dynamic_quant_module_mappings"),
        ("DEFAULT_DYNAMIC_SPARSE_QUANT_MODULE_MAPPINGS", "get_default_dynamic_sparse_quant_module_mappings"),
        ("DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS", "get_default_float_to_quantized_operator_mappings"),
        ("DEFAULT_QAT_MODULE_MAPPINGS", "get_default_qat_module_mappings"),
        ("DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS", "get_default_static_quant_reference_module_mappings"),
        ("DEFAULT_STATIC_QUANT_MODULE_MAPPINGS", "get_default_static_quant_module_mappings"),
        ("DEFAULT_STATIC_SPARSE_QUANT_MODULE_MAPPINGS", "get_default_static_sparse_quant_module_mappings"),
    ],
)
def test_a_getter_gives_a_copy(table: str, getter: str) -> None:
    kept: dict[Any, Any] = getattr(qfx, table)
    given = getattr(qfx, getter)()
    assert given == kept
    given.clear()
    assert kept


def test_embeddings_have_tables_of_their_own() -> None:
    assert set(qfx.get_embedding_static_quant_module_mappings()) >= {nn.Embedding, nn.EmbeddingBag}
    assert set(qfx.get_embedding_qat_module_mappings()) >= {nn.Embedding, nn.EmbeddingBag}


def test_known_ranges_hold_what_the_modules_give() -> None:
    x = torch.linspace(-9, 9, 100).reshape(10, 10)
    for kind, factory in qfx.DEFAULT_MODULE_TO_ACT_POST_PROCESS.items():
        y = (kind(dim=1) if kind is nn.Softmax else kind())(x)
        observer = factory()
        scale, zero_point = (float(each) for each in observer.calculate_qparams())
        low, high = (0 - zero_point) * scale, (255 - zero_point) * scale
        assert low <= float(y.min())
        assert float(y.max()) <= high + scale


def test_fuser_method_of_a_list_of_classes() -> None:
    made = qfx.get_fuser_method((nn.Linear, nn.ReLU))(False, nn.Linear(2, 3), nn.ReLU())
    assert type(made).__name__ == "LinearReLU"
    assert made(torch.randn(4, 2)).min() >= 0


def test_no_observer_set_is_left_without_observers() -> None:
    for kind in qfx.no_observer_set():
        assert issubclass(kind, nn.Module)
    assert qfx.no_observer_set()
