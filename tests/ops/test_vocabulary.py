"""The vocabulary is consistent, and its facts are the ones kernels and rules rely on."""

from __future__ import annotations

import pytest

from qfx import ops
from qfx.ops import Op, QParamClass


@pytest.mark.parametrize("op", ops.REGISTRY.values(), ids=str)
def test_a_fact_sheet_is_consistent(op: Op) -> None:
    assert ops.REGISTRY[op.name] is ops.lookup(op.name) is op
    assert len(set(op.names)) == len(op.names)
    assert op.optional <= {name.rstrip("*") for name in op.inputs}
    assert not op.opaque
    if op.commutative:
        assert len(op.inputs) >= 2
    if op.clamp:
        assert op.qparams is QParamClass.SAME
    for name, attr in op.attrs.items():
        if attr.default is not None:
            assert op.normalize(name, attr.default) == attr.default  # the default is in canonical form


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="no_such_op"):
        ops.lookup("no_such_op")


def test_only_arithmetic_commutes() -> None:
    commuting = {op.name for op in ops.REGISTRY.values() if op.commutative}
    assert {"add", "mul"} <= commuting
    assert commuting.isdisjoint({"sub", "div", "matmul", "cat", "linear", "conv2d"})


def test_clamps_only_bound_their_input() -> None:
    assert {op.name for op in ops.REGISTRY.values() if op.clamp} == {"relu", "relu6", "hardtanh", "clamp"}


def test_what_a_match_may_copy_is_cheap_and_pure() -> None:
    recomputable = {op.name for op in ops.REGISTRY.values() if op.recomputable}
    assert {"dequantize", "quantize", "reshape", "transpose", "getitem"} <= recomputable
    assert recomputable.isdisjoint({"linear", "conv2d", "relu", "add", "dropout"})


@pytest.mark.parametrize(
    ("names", "how"),
    [
        ("conv2d linear add mul cat layer_norm batch_norm hardswish elu matmul", QParamClass.OWN),
        (
            "relu max_pool2d adaptive_max_pool3d flatten reshape permute mean pad getitem chunk avg_pool2d interpolate",
            QParamClass.SAME,
        ),
        ("sigmoid tanh softmax hardsigmoid", QParamClass.FIXED),
        ("size dim assert placeholder output", QParamClass.NEVER),
    ],
)
def test_where_output_parameters_come_from(names: str, how: QParamClass) -> None:
    assert {name: ops.lookup(name).qparams for name in names.split()} == dict.fromkeys(names.split(), how)


def test_strict_attributes_are_those_that_change_the_meaning() -> None:
    strict = {(op.name, name) for op in ops.REGISTRY.values() for name, attr in op.attrs.items() if attr.strict}
    assert {("add", "alpha"), ("batch_norm", "training"), ("softmax", "dtype"), ("conv2d", "padding_mode")} <= strict
    assert ("conv2d", "stride") not in strict
