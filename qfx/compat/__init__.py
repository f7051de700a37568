"""The old names: ``torch.ao.quantization`` and its neighbours, resolved to qfx.

Example:
    >>> import qfx.compat
    >>> qfx.compat.install()
    >>> from torch.ao.quantization.quantize_fx import prepare_fx
    >>> prepare_fx.__module__
    'qfx.api.prepare'
    >>> qfx.compat.uninstall()
"""

from __future__ import annotations

from qfx.compat.install import install as install
from qfx.compat.install import installed as installed
from qfx.compat.install import uninstall as uninstall

__all__ = ["install", "installed", "uninstall"]
