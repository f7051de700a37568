"""The module families, laid out as users know them.

``intrinsic`` (float modules fused into one unit), ``qat`` (for training), ``quantizable`` (float modules taken apart),
``quantized``, ``quantized.dynamic``, ``quantized.reference``, ``intrinsic.quantized``, ``intrinsic.quantized.dynamic``
and ``sparse.quantized``.
"""

from __future__ import annotations

import qfx.nn.intrinsic.qat
import qfx.nn.intrinsic.quantized.dynamic
import qfx.nn.quantized.dynamic
import qfx.nn.quiet  # noqa: F401  before anybody makes a quantized tensor
from qfx.nn import intrinsic, qat, quantizable, quantized, sparse

__all__ = ["intrinsic", "qat", "quantizable", "quantized", "sparse"]
