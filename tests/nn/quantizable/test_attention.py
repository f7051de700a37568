"""Multi-head attention in parts: the float module's numbers; then observed, converted, saved, scripted."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from qfx.config import get_default_qconfig
from qfx.nn import quantizable, quantized
from qfx.nn.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

KINDS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "other sizes": {"kdim": 6, "vdim": 7},
    "no bias": {"bias": False},
    "bias of key and value": {"add_bias_kv": True},
    "zeros": {"add_zero_attn": True},
    "both": {"add_zero_attn": True, "add_bias_kv": True},
}
BOOLS, FLOATS = torch.zeros(5, 4, dtype=torch.bool), torch.randn(5, 4)
BOOLS[0, 1] = BOOLS[3, 2] = True
PADDED = torch.zeros(3, 4, dtype=torch.bool)
PADDED[1, 3] = True
OPTIONS = {
    "nothing": {},
    "padding": {"key_padding_mask": PADDED},
    "mask": {"attn_mask": BOOLS},
    "mask of floats": {"attn_mask": FLOATS},
    "mask by head": {"attn_mask": BOOLS.repeat(6, 1, 1), "key_padding_mask": PADDED},
    "heads apart": {"average_attn_weights": False},
    "no weights": {"need_weights": False},
}


def float_attention(kind):
    module = nn.MultiheadAttention(8, 2, **KINDS[kind]).eval()
    if module.in_proj_bias is not None:
        nn.init.uniform_(module.in_proj_bias)
        nn.init.uniform_(module.out_proj.bias)
    module.qconfig = get_default_qconfig("fbgemm")
    return module


def arguments(kind):
    key, value = KINDS[kind].get("kdim", 8), KINDS[kind].get("vdim", 8)
    x = torch.randn(5, 3, 8), torch.randn(4, 3, key), torch.randn(4, 3, value)
    return tuple(t.transpose(0, 1) for t in x) if kind == "batch first" else x


def quint8(tensors):
    return tuple(torch.quantize_per_tensor(t, 0.03, 128, torch.quint8) for t in tensors)


def converted(kind, x=None):
    module = float_attention(kind)
    observed = quantizable.MultiheadAttention.from_float(module)
    observed(*(x or arguments(kind)))
    return module, quantized.MultiheadAttention.from_observed(observed)


def equal(a, b):
    return all(torch.equal(x.int_repr(), y.int_repr()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_the_parts_compute_what_the_whole_does(kind, option):
    module, x = float_attention(kind), arguments(kind)
    parts = quantizable.MultiheadAttention.from_float(module)
    options = OPTIONS[option]
    if kind in ("zeros", "bias of key and value", "both") and option == "mask of floats":
        options = {"attn_mask": options["attn_mask"].clone()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
        expected = module(*x, **options)
    torch.testing.assert_close(parts(*x, **options), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_integers_are_close_in_every_form(kind):
    x = quint8(arguments(kind))
    module, made = converted(kind, tuple(t.dequantize() for t in x))
    y = made(*x)
    expected = module(*(t.dequantize() for t in x))
    for found, one in zip(y, expected, strict=True):
        assert (found.dequantize() - one).abs().max() < 0.1
    blank = quantized.MultiheadAttention(8, 2, **KINDS[kind])
    blank.load_state_dict(made.state_dict(), strict=True)
    for one in (blank, copy.deepcopy(made), pickle.loads(pickle.dumps(made)), torch.jit.script(made)):
        assert equal(one(*x), y)
    assert repr(made).startswith("QuantizedMultiheadAttention(")
    assert made(*x, need_weights=False)[1] is None


@pytest.mark.parametrize("kind", KINDS)
def test_back_to_float(kind):
    module, made = converted(kind)
    back, x = made.dequantize(), arguments(kind)
    assert type(back) is nn.MultiheadAttention
    assert (back(*x)[0] - module(*x)[0]).abs().max() < 0.02
    for name, parameter in back.named_parameters():
        assert (parameter - dict(module.named_parameters())[name]).abs().max() < 0.02


def test_states_without_the_biases_of_key_and_value_load_as_the_original_saves_them():
    _, made = converted("bias of key and value")
    state = made.state_dict()
    bias = made.bias_k.int_repr()
    for name in ("bias_k", "bias_v"):
        del state[name]
    made.load_state_dict(state, strict=True)
    assert torch.equal(made.bias_k.int_repr(), bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_causal": True}, "causal mask not supported"),
        ({"query": torch.randn(5, 3, 7)}, "the query has 7 features, embed_dim is 8"),
        ({"key": torch.randn(3, 3, 8)}, "different lengths or batches"),
        ({"key_padding_mask": PADDED[:, :2]}, r"key_padding_mask is .*\[3, 2\].*not \[3, 4\]"),
        ({"attn_mask": BOOLS[:4]}, r"size of the 2D attn_mask is not correct.*not \[5, 4\]"),
        ({"attn_mask": BOOLS.repeat(3, 1, 1)}, r"size of the 3D attn_mask is not correct.*not \[6, 5, 4\]"),
        ({"attn_mask": BOOLS[0]}, "dimension 1 is not supported"),
        ({"attn_mask": BOOLS.int()}, r"Only float and bool types are supported for masks, not torch\.int32"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    query, key, value = arguments("plain")
    given = {"query": query, "key": key, "value": value} | change
    with pytest.raises(InputError, match=message):
        quantizable.MultiheadAttention(8, 2)(**given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: quantizable.MultiheadAttention.from_float(nn.Linear(1, 1)),
            "expects a MultiheadAttention, got Linear",
        ),
        (lambda: quantizable.MultiheadAttention.from_float(nn.MultiheadAttention(8, 2)), "without a qconfig"),
        (lambda: quantizable.MultiheadAttention.from_observed(None), "is an observed module already"),
        (lambda: quantized.MultiheadAttention.from_float(None), "convert a non-observed MHA module"),
        (
            lambda: quantized.MultiheadAttention.from_observed(nn.Linear(1, 1)),
            "expects a quantizable.MultiheadAttention",
        ),
    ],
)
def test_modules_of_another_kind_are_refused(make, message):
    with pytest.raises((AssertionError, NotImplementedError), match=message):
        make()
