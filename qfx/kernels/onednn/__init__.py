"""Integer kernels on plain ``torch.uint8`` and ``torch.int8`` tensors: onednn's, and our own for what it lacks.

Scales and zero points are arguments, so nothing here needs torch's deprecated quantized dtypes. Graphs call these
functions by name. Convolutions and linear layers are onednn's; pools, means, sums, products, tables and padding are
integer code of our own.

Example:
    >>> import torch
    >>> from qfx.kernels import onednn
    >>> q = onednn.quantize(torch.tensor([0.5, 1.0, 6.0]), 0.05, 0)
    >>> onednn.add(q, 0.05, 0, q, 0.05, 0, 0.1, 0)
    tensor([ 10,  20, 120], dtype=torch.uint8)
"""

from __future__ import annotations

from qfx.kernels.codes import adaptive_max_pool
from qfx.kernels.onednn.boundary import dequantize, quantize, requantize, through_integers
from qfx.kernels.onednn.elementwise import add, cat, clamp, lookup, mul, table_of
from qfx.kernels.onednn.moves import pad, resize
from qfx.kernels.onednn.pools import adaptive_avg_pool, avg_pool, max_pool, mean
from qfx.kernels.onednn.spec import OnednnSpec, PackedOnednn
from qfx.kernels.onednn.weighted import conv, conv_add, linear, linear_add

__all__ = [
    "OnednnSpec",
    "PackedOnednn",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add",
    "avg_pool",
    "cat",
    "clamp",
    "conv",
    "conv_add",
    "dequantize",
    "linear",
    "linear_add",
    "lookup",
    "max_pool",
    "mean",
    "mul",
    "pad",
    "quantize",
    "requantize",
    "resize",
    "table_of",
    "through_integers",
]
