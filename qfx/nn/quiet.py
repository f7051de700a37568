"""Let torch's notice about quantized dtypes pass unseen: C++ raises it once a process, for the first such tensor.

The dtypes are what the native kernels take, so a user of qfx can do nothing about it. No filter of the process is
changed: the first tensor is made here, under a filter of its own.
"""

from __future__ import annotations

import warnings

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.empty(0, dtype=torch.quint8)
