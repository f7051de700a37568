"""The helpers of the original's ``utils``: the same names, parameters and answers."""

from __future__ import annotations

import inspect
import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import fx, nn

import qfx
from qfx import config, utilities
from qfx.config import private_names as private_names_of_configurations
from qfx.utilities import private_names

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    theirs = pytest.importorskip("torch.ao.quantization.utils")
    from torch.ao.quantization import observer as their_observers
    from torch.ao.quantization import qconfig as their_qconfigs
    from torch.ao.quantization import qconfig_mapping as their_mappings

pytestmark = pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning")


def test_names() -> None:
    assert sorted(utilities.__all__) == sorted(theirs.__all__)
    assert all(getattr(qfx, name) is getattr(utilities, name) for name in theirs.__all__)
    assert all(hasattr(theirs, name) for name in private_names.__all__)


@pytest.mark.parametrize(
    "name", [name for name in (*theirs.__all__, *private_names.__all__) if inspect.isfunction(getattr(theirs, name))]
)
def test_parameters(name: str) -> None:
    mine = getattr(utilities, name, None) or getattr(private_names, name)
    said, expected = (
        [(p.name, p.default) for p in inspect.signature(function).parameters.values()]
        for function in (mine, getattr(theirs, name))
    )
    assert said == expected


def test_kinds_of_calls() -> None:
    for name in ("module_type_list", "func_list"):
        assert set(getattr(private_names, name)) == getattr(theirs, name)
    # The original has a function among its method names, which no node can match.
    assert set(private_names.method_list) == {each for each in theirs.method_list if isinstance(each, str)}


QCONFIGS = [name for name in config.__all__ if name.endswith("_qconfig") and name.startswith(("default_", "float"))]
QUESTIONS = [
    *("activation_dtype", "weight_dtype", "activation_is_statically_quantized", "activation_is_dynamically_quantized"),
    *("activation_is_int8_quantized", "activation_is_int32_quantized", "weight_is_quantized"),
    *("weight_is_statically_quantized", "op_is_int8_dynamically_quantized", "get_qconfig_dtypes", "get_quant_type"),
]


@pytest.mark.parametrize("name", [n for n in QCONFIGS if "only_qconfig" not in n])
def test_questions_about_configurations(name: str) -> None:
    mine, other = getattr(config, name), getattr(their_qconfigs, name)
    for question in QUESTIONS:
        if question == "get_quant_type" and name == "default_reuse_input_qconfig":
            continue  # float16 weights and static quint8 activations are no kind, for the original either
        expected = getattr(theirs, question)(other)
        found = getattr(utilities, question)(mine)
        assert getattr(found, "name", found) == getattr(expected, "name", expected), question


DTYPES = [torch.quint8, torch.qint8, torch.uint8, torch.int8, torch.qint32, torch.int32, torch.int16, torch.quint4x2]
SCHEMES = [torch.per_tensor_affine, torch.per_tensor_symmetric, torch.per_channel_affine, torch.per_channel_symmetric]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint16, torch.float16, torch.float8_e5m2])
@pytest.mark.parametrize(("asked", "reduce_range"), list(itertools.product([False, True], repeat=2)))
def test_codes(dtype: torch.dtype, asked: bool, reduce_range: bool) -> None:
    args = (-4, 7, asked, dtype, reduce_range)
    assert utilities.calculate_qmin_qmax(*args) == theirs.calculate_qmin_qmax(*args)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("qscheme", "asked"), list(itertools.product(SCHEMES, [False, True])))
@pytest.mark.parametrize("shape", [(), (4,)])
def test_parameters_of_ranges(dtype: Any, qscheme: Any, asked: bool, shape: tuple[int, ...]) -> None:
    for scale in (1e-9, 0.3, 40.0):
        low, high = -torch.rand(shape) * scale, torch.rand(shape) * scale
        args = (low, high, 0, 15, dtype, torch.tensor([1e-7]), asked, qscheme)
        for found, expected in zip(utilities.determine_qparams(*args), theirs.determine_qparams(*args), strict=True):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["default_weight_observer", "default_per_channel_weight_observer"])
def test_parameters_as_dictionaries(name: str) -> None:
    both = getattr(qfx, name)(), getattr(their_observers, name)()
    weight = torch.randn(4, 3)
    found, expected = (module.get_qparam_dict((each, each(weight))[0]) for module, each in zip((qfx, theirs), both))  # noqa: B905
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value


def test_nodes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tanh, self.linear = nn.Tanh(), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.linear(self.tanh(x)).permute(1, 0)).exp()

    gm = fx.symbolic_trace(Net())
    modules = dict(gm.named_modules())
    for node in gm.graph.nodes:
        assert utilities.check_node(node, modules) == theirs.check_node(node, modules)


@pytest.mark.parametrize("is_qat", [False, True])
def test_symmetric_mappings(is_qat: bool) -> None:
    name = f"_get_symmetric_qnnpack{'_qat' if is_qat else ''}_qconfig_mapping"
    mine = getattr(private_names_of_configurations, name)()
    other = getattr(their_mappings, name)()
    assert list(mine.object_type_qconfigs) == list(other.object_type_qconfigs)
    for key, qconfig in (("global", other.global_qconfig), *other.object_type_qconfigs.items()):
        found = mine.global_qconfig if key == "global" else mine.object_type_qconfigs[key]
        assert found.activation.p.func.__name__ == qconfig.activation.p.func.__name__
        assert found.activation.p.keywords.keys() == qconfig.activation.p.keywords.keys()


def test_private_names_of_configurations() -> None:
    names = private_names_of_configurations
    assert their_mappings._QCONFIG_STYLE_ORDER == names._QCONFIG_STYLE_ORDER
    for name in names.__all__:
        other = getattr(their_qconfigs, name, None) or getattr(their_mappings, name, None)
        assert other is not None or name == "_GLOBAL_DICT_KEY", name
        if inspect.isfunction(other):
            assert len(inspect.signature(getattr(names, name)).parameters) == len(inspect.signature(other).parameters)
    assert list(names._FIXED_QPARAMS_OP_TO_OBSERVER) == list(their_mappings._FIXED_QPARAMS_OP_TO_OBSERVER)
