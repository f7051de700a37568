"""The op vocabulary: one line an op. Families share their attributes; nothing here knows a spelling."""

from __future__ import annotations

from typing import Any

from qfx.ops.op import Attr, Op, QParamClass

OWN, SAME, FIXED, NEVER = QParamClass.OWN, QParamClass.SAME, QParamClass.FIXED, QParamClass.NEVER
REGISTRY: dict[str, Op] = {}


def _tuple_of(n: int) -> Any:
    """Normalizer: an int, a string or a sequence becomes an n-tuple (strings such as ``"same"`` stay)."""

    def normal(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(value) * n if len(value) == 1 else tuple(value)
        return (value,) * n if isinstance(value, int) else value

    return normal


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _dims(value: Any) -> Any:
    """Normalizer: dimensions of a reduction as a tuple. None, an empty tuple to torch too, is all of them."""
    if isinstance(value, int):
        return (value,)
    return (tuple(value) or None) if isinstance(value, list | tuple) else value


def _op(name: str, inputs: str, /, attrs: dict[str, Attr] | None = None, **facts: Any) -> Op:
    names = tuple(part.rstrip("?") for part in inputs.split())
    optional = frozenset(part.rstrip("?") for part in inputs.split() if part.endswith("?"))
    op = Op(name, names, attrs or {}, optional=optional, **facts)
    REGISTRY[name] = op
    return op


def _free(*names: str, **defaults: Any) -> dict[str, Attr]:
    return {name: Attr() for name in names} | {name: Attr(default) for name, default in defaults.items()}


def _strict(**defaults: Any) -> dict[str, Attr]:
    return {name: Attr(default, strict=True) for name, default in defaults.items()}


def _conv_attrs(n: int, transposed: bool) -> dict[str, Attr]:
    each = _tuple_of(n)
    attrs = {"stride": Attr((1,) * n, normal=each), "padding": Attr((0,) * n, normal=each)}
    if transposed:
        attrs["output_padding"] = Attr((0,) * n, normal=each)
    attrs["groups"] = Attr(1)
    attrs["dilation"] = Attr((1,) * n, normal=each)
    return attrs | _strict(padding_mode="zeros")


def _pool_attrs(n: int, kind: str) -> dict[str, Attr]:
    each = _tuple_of(n)
    attrs = {
        "kernel_size": Attr(normal=each),
        "stride": Attr(None, normal=lambda v: each(v) if v != [] else None),
        "padding": Attr((0,) * n, normal=each),
    }
    if kind == "max":
        return (
            attrs | {"dilation": Attr((1,) * n, normal=each), "ceil_mode": Attr(False)} | _strict(return_indices=False)
        )
    return attrs | {"ceil_mode": Attr(False), "count_include_pad": Attr(True), "divisor_override": Attr(None)}


# -- structure -----------------------------------------------------------------------------------------------------
placeholder = _op("placeholder", "")
output = _op("output", "xs*")
getattr_ = _op("getattr", "x", _free("name"))
getitem = _op("getitem", "x", _free("index"), recomputable=True, qparams=SAME)

# -- weighted ------------------------------------------------------------------------------------------------------
conv1d, conv2d, conv3d = (_op(f"conv{n}d", "x w b?", _conv_attrs(n, False), qparams=OWN) for n in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (
    _op(f"conv_transpose{n}d", "x w b?", _conv_attrs(n, True), qparams=OWN) for n in (1, 2, 3)
)
linear = _op("linear", "x w b?", qparams=OWN)
bilinear = _op("bilinear", "x y w b?")
embedding = _op(
    "embedding", "x w", _free(padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False)
)
embedding_bag = _op("embedding_bag", "x w offsets? per_sample_weights?", _free(mode="mean"))

# -- normalization -------------------------------------------------------------------------------------------------
batch_norm = _op(
    "batch_norm", "x gamma? beta? mean? var?", _strict(training=False) | _free(momentum=0.1, eps=1e-5), qparams=OWN
)
layer_norm = _op(
    "layer_norm", "x gamma? beta?", {"normalized_shape": Attr(normal=_tuple_of(1)), "eps": Attr(1e-5)}, qparams=OWN
)
group_norm = _op("group_norm", "x gamma? beta?", _free("num_groups", eps=1e-5), qparams=OWN)
instance_norm = _op(
    "instance_norm", "x gamma? beta? mean? var?", _free(use_input_stats=True, momentum=0.1, eps=1e-5), qparams=OWN
)
dropout = _op("dropout", "x", _free(p=0.5, training=False, inplace=False), qparams=SAME)

# -- clamps --------------------------------------------------------------------------------------------------------
relu = _op("relu", "x", _free(inplace=False), qparams=SAME, clamp=True)
relu6 = _op("relu6", "x", _free(inplace=False), qparams=SAME, clamp=True)
hardtanh = _op("hardtanh", "x", _free(min_val=-1.0, max_val=1.0, inplace=False), qparams=SAME, clamp=True)
clamp = _op("clamp", "x", _free(min=None, max=None), qparams=SAME, clamp=True)

# -- elementwise ---------------------------------------------------------------------------------------------------
add = _op("add", "x y", _strict(alpha=1), commutative=True, qparams=OWN)
sub = _op("sub", "x y", _strict(alpha=1))
mul = _op("mul", "x y", commutative=True, qparams=OWN)
div = _op("div", "x y", _strict(rounding_mode=None))
neg = _op("neg", "x")
sigmoid = _op("sigmoid", "x", qparams=FIXED)
tanh = _op("tanh", "x", qparams=FIXED)
hardsigmoid = _op("hardsigmoid", "x", _free(inplace=False), qparams=FIXED)
hardswish = _op("hardswish", "x", _free(inplace=False), qparams=OWN)
elu = _op("elu", "x", _free(alpha=1.0, scale=1.0, input_scale=1.0, inplace=False), qparams=OWN)
leaky_relu = _op("leaky_relu", "x", _free(negative_slope=0.01, inplace=False), qparams=OWN)
prelu = _op("prelu", "x w", qparams=OWN)
gelu = _op("gelu", "x", _free(approximate="none"))
silu = _op("silu", "x", _free(inplace=False))
mish = _op("mish", "x", _free(inplace=False))
softmax = _op("softmax", "x", _free("dim") | _strict(dtype=None), qparams=FIXED)
softplus = _op("softplus", "x", _free(beta=1.0, threshold=20.0))
softsign = _op("softsign", "x")
exp = _op("exp", "x")
sqrt = _op("sqrt", "x")
pow_ = _op("pow", "x y")
abs_ = _op("abs", "x")

# -- products ------------------------------------------------------------------------------------------------------
matmul = _op("matmul", "x y", qparams=OWN)
scaled_dot_product_attention = _op(
    "scaled_dot_product_attention", "q k v mask?", _free(dropout_p=0.0, is_causal=False, scale=None)
)

# -- pools and reductions ------------------------------------------------------------------------------------------
max_pool1d, max_pool2d, max_pool3d = (_op(f"max_pool{n}d", "x", _pool_attrs(n, "max"), qparams=SAME) for n in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (_op(f"avg_pool{n}d", "x", _pool_attrs(n, "avg"), qparams=SAME) for n in (1, 2, 3))
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (
    _op(f"adaptive_avg_pool{n}d", "x", {"output_size": Attr(normal=_tuple_of(n))}, qparams=SAME) for n in (1, 2, 3)
)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (
    _op(
        f"adaptive_max_pool{n}d",
        "x",
        {"output_size": Attr(normal=_tuple_of(n))} | _strict(return_indices=False),
        qparams=SAME,
    )
    for n in (1, 2, 3)
)
mean = _op("mean", "x", {"dim": Attr(None, normal=_dims), "keepdim": Attr(False)} | _strict(dtype=None), qparams=SAME)
sum_ = _op("sum", "x", {"dim": Attr(None, normal=_dims), "keepdim": Attr(False)} | _strict(dtype=None))
max_, min_ = (_op(name, "x", _free(dim=None, keepdim=False)) for name in ("max", "min"))
interpolate = _op(
    "interpolate",
    "x",
    _free(size=None, scale_factor=None, mode="nearest", align_corners=None)
    | _strict(recompute_scale_factor=None, antialias=False),
    qparams=SAME,
)
pad = _op("pad", "x", {"pad": Attr(normal=_tupled), "mode": Attr("constant"), "value": Attr(None)}, qparams=SAME)

# -- shape: data moves, nothing is computed ------------------------------------------------------------------------
cat = _op("cat", "xs*", _free(dim=0), qparams=OWN)
stack = _op("stack", "xs*", _free(dim=0), qparams=SAME)


def _shape(name: str, attrs: dict[str, Attr] | None = None) -> Op:
    return _op(name, "x", attrs, recomputable=True, qparams=SAME)


identity = _shape("identity")
flatten = _shape("flatten", _free(start_dim=0, end_dim=-1))
unflatten = _shape("unflatten", _free("dim", "sizes"))
reshape = _shape("reshape", {"shape": Attr(normal=_tupled)})
permute = _shape("permute", {"dims": Attr(normal=_tupled)})
transpose = _shape("transpose", _free("dim0", "dim1"))
movedim = _shape("movedim", _free("source", "destination"))
flip = _shape("flip", {"dims": Attr(normal=_tupled)})
roll = _shape("roll", {"shifts": Attr(normal=_tupled), "dims": Attr((), normal=_tupled)})
t = _shape("t")
squeeze = _shape("squeeze", _free(dim=None))
unsqueeze = _shape("unsqueeze", _free("dim"))
contiguous = _shape("contiguous", _free(memory_format=None))
expand = _shape("expand", {"shape": Attr(normal=_tupled)})
repeat = _shape("repeat", {"repeats": Attr(normal=_tupled)})
tile = _shape("tile", {"dims": Attr(normal=_tupled)})
repeat_interleave = _shape("repeat_interleave", _free("repeats", dim=None))
chunk = _shape("chunk", _free("chunks", dim=0))
split = _shape("split", _free("sizes", dim=0))
tensor_split = _shape("tensor_split", _free("sizes", dim=0))
unbind = _shape("unbind", _free(dim=0))
SPLITS = (chunk, split, tensor_split, unbind)  # their result is a tuple
narrow = _shape("narrow", _free("dim", "start", "length"))
slice_ = _shape("slice", _free(dim=0, start=None, end=None, step=1))
select = _shape("select", _free("dim", "index"))
pixel_shuffle = _shape("pixel_shuffle", _free("upscale_factor"))
pixel_unshuffle = _shape("pixel_unshuffle", _free("downscale_factor"))
channel_shuffle = _shape("channel_shuffle", _free("groups"))
detach = _shape("detach")
clone = _shape("clone", _free(memory_format=None))

# -- facts about tensors, not tensors ------------------------------------------------------------------------------
size = _op("size", "x", _free(dim=None))
dim_ = _op("dim", "x")
to = _op("to", "x", _free(args=(), kwargs=None))
assert_ = _op("assert", "x", _free(message=None))

# -- quantization --------------------------------------------------------------------------------------------------
quantize = _op(
    "quantize", "x scale? zero_point?", _free(axis=None, dtype=None, quant_min=None, quant_max=None), recomputable=True
)
quantize_dynamic = _op("quantize_dynamic", "x", _free("dtype", reduce_range=False))  # the scale is chosen per call
dequantize = _op(
    "dequantize",
    "x scale? zero_point?",
    _free(axis=None, dtype=None, quant_min=None, quant_max=None),
    recomputable=True,
)
observe = _op("observe", "x", _free("observer"))
clamp_codes = _op(
    "clamp_codes", "x", _free(low=None, high=None, most=None, reuse=False), recomputable=True, qparams=SAME
)


def lookup(name: str) -> Op:
    """The op called `name`.

    Raises:
        KeyError: there is none; opaque ops (an unknown class or function) are made where they are read.
    """
    return REGISTRY[name]
