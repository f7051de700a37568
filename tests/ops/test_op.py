"""Ops are fact sheets: names, defaults, one form for every spelling of a value, and errors where they are misused."""

from __future__ import annotations

import copy
import pickle

import pytest

from qfx import ops
from qfx.ops import Attr, Op, QParamClass


def test_names_are_inputs_then_attributes_in_call_order() -> None:
    op = Op("example", ("x", "ys*"), {"dim": Attr(0)})
    assert op.names == ("x", "ys", "dim")
    assert (op.slot("x"), op.slot("ys")) == (0, 1)
    with pytest.raises(ValueError, match="example has no input 'dim'; it has x, ys"):
        op.slot("dim")


def test_the_spellings_of_one_value_have_one_form() -> None:
    assert ops.conv2d.normalize("stride", 2) == ops.conv2d.normalize("stride", [2, 2]) == (2, 2)
    assert ops.conv2d.normalize("stride", [2]) == (2, 2)
    assert ops.conv2d.normalize("padding", "same") == "same"
    assert ops.max_pool2d.normalize("stride", []) is None
    assert ops.conv2d.normalize("groups", 4) == 4
    assert ops.relu.normalize("no such attribute", 5) == 5


def test_an_op_is_compared_by_identity_and_stays_itself() -> None:
    assert copy.copy(ops.relu) is copy.deepcopy(ops.relu) is ops.relu
    assert pickle.loads(pickle.dumps(ops.relu)) is ops.relu
    assert Op("relu", ("x",)) != ops.relu


def test_a_call_without_a_symbolic_value_says_where_ops_belong() -> None:
    with pytest.raises(TypeError, match=r"ops.relu was called without a symbolic value.*use g.call\(ops.relu"):
        ops.relu(3.0)
    with pytest.raises(TypeError, match=r"ops.cat was called without a symbolic value"):
        ops.cat([1.0, 2.0])


def test_a_symbolic_value_is_found_in_a_list_and_among_keywords() -> None:
    class Symbol:
        def __qfx_op__(self, op: Op, args: object, kwargs: object) -> tuple[object, ...]:
            return op, args, kwargs

    symbol = Symbol()
    assert ops.cat([1.0, [symbol]], 1) == (ops.cat, ([1.0, [symbol]], 1), {})
    assert ops.add(2.0, y=symbol) == (ops.add, (2.0,), {"y": symbol})


def test_it_is_shown_as_it_is_written() -> None:
    assert repr(ops.conv2d) == "ops.conv2d"


def test_an_op_has_no_quantized_form_unless_it_says_so() -> None:
    assert Op("example", ("x",)).qparams is QParamClass.NEVER
