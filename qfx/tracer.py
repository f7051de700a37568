"""The original's tracer, for code that traces by itself; `prepare_fx` uses `qfx.capture.CaptureTracer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.fx import Tracer
from torch.fx.proxy import Scope as Scope
from torch.fx.proxy import ScopeContextManager as ScopeContextManager

from qfx.nn.intrinsic import _FusedModule
from qfx.nn.stubs import is_layer

_LAYERS = ("torch.nn", "torch.ao.nn")


class QuantizationTracer(Tracer):
    """A symbolic tracer for which layers are leaves, those of qfx and fused ones among them.

    After ``trace``, ``node_name_to_scope`` tells for each node the path and the class of the module it ran in.

    Args:
        skipped_module_names: qualified names of submodules to keep whole.
        skipped_module_classes: classes whose instances are kept whole.

    Example:
        >>> tracer = QuantizationTracer([], [])
        >>> graph = tracer.trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
        >>> tracer.node_name_to_scope["_0"]
        ('0', <class 'torch.nn.modules.linear.Linear'>)
    """

    def __init__(
        self, skipped_module_names: Sequence[str], skipped_module_classes: Sequence[Callable[..., Any]]
    ) -> None:
        super().__init__()
        self.skipped_module_names = list(skipped_module_names)
        self.skipped_module_classes = list(skipped_module_classes)
        self.scope = Scope("", None)
        self.record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is kept whole."""
        layer = is_layer(m) or (m.__module__.startswith(_LAYERS) and not isinstance(m, nn.Sequential))
        asked = module_qualified_name in self.skipped_module_names or type(m) in self.skipped_module_classes
        return layer or asked or isinstance(m, _FusedModule)
