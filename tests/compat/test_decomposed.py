"""The reference graph with plain integers, for exporters."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
import qfx.compat
from qfx.compat.private.flows import _convert_to_reference_decomposed_fx


@pytest.fixture(autouse=True)
def _old_names() -> Iterator[None]:
    qfx.compat.install()
    yield
    qfx.compat.uninstall()


class Linears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.w = nn.Linear(5, 10), nn.Parameter(torch.randn(4, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.linear(x), self.w)


@pytest.mark.parametrize("qconfig", [qfx.get_default_qconfig("fbgemm"), qfx.default_dynamic_qconfig])
def test_it_computes_what_the_reference_graph_computes(qconfig: Any) -> None:
    x = torch.randn(3, 5)
    prepared = qfx.prepare_fx(Linears().eval(), qfx.QConfigMapping().set_global(qconfig), (x,))
    prepared(x)
    plain, made = qfx.convert_to_reference_fx(prepared), _convert_to_reference_decomposed_fx(prepared)
    names = [str(node.target) for node in made.graph.nodes if node.op == "call_function"]
    assert any(name.startswith("quantized_decomposed.quantize_per_tensor") for name in names)
    assert not any("quantize_per_tensor_dynamic" in name or name == "dequantize" for name in names)
    assert made.linear.is_decomposed
    assert (made(x) - plain(x)).abs().max() < 0.1  # a code next to a tie goes another way


def test_codes_are_those_the_observer_had() -> None:
    x = torch.randn(3, 5)
    prepared = qfx.prepare_fx(
        nn.Sequential(nn.Linear(5, 5)).eval(), qfx.QConfigMapping().set_global(qfx.get_default_qconfig("fbgemm")), (x,)
    )
    prepared(x)
    made = _convert_to_reference_decomposed_fx(prepared)
    first = next(node for node in made.graph.nodes if node.op == "call_function")
    assert first.args[3:] == (0, 127, torch.uint8)


def test_the_old_module_without_pytorchs_file() -> None:
    script = """
        import qfx.compat.table as table
        from qfx.kernels import decomposed
        found = table.file_of
        table.file_of = lambda name: None if name.endswith("_decomposed") else found(name)
        decomposed._DEFINED_BY = "torch.no_such_package.of_this_name"
        import qfx.compat
        qfx.compat.install()
        from torch.ao.quantization.fx._decomposed import quantized_decomposed_lib
        import torch
        torch.ops.quantized_decomposed.quantize_per_tensor(torch.zeros(1), 0.1, 0, 0, 255, torch.uint8)
        print(quantized_decomposed_lib is decomposed.library())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
