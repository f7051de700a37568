"""``fuse_fx``: fold and merge, and quantize nothing."""

from __future__ import annotations

from typing import Any

from torch import nn

from qfx.api.arguments import as_config, as_examples, preserve
from qfx.api.modules import FusedGraphModule
from qfx.api.pause import no_collections
from qfx.api.stages import prepare_stages, with_passes
from qfx.capture import capture
from qfx.config import BackendConfig, FuseCustomConfig
from qfx.graph.nodes import plain_names
from qfx.passes.pipeline import Pipeline, Step, run_steps

_KEEPS = "trace with a torch.fx.Tracer whose is_leaf_module says so of {}, and pass the GraphModule"


@no_collections()
def fuse_fx(
    model: nn.Module,
    fuse_custom_config: FuseCustomConfig | dict[str, Any] | None = None,
    backend_config: BackendConfig | dict[str, Any] | None = None,
    *,
    example_inputs: tuple[Any, ...] | dict[str, Any] | None = None,
    passes: dict[str, list[Step]] | None = None,
) -> FusedGraphModule:
    """Fold batch norm and merge relu in a copy of a model in eval mode.

    Args:
        model: a module in eval mode; not changed.
        fuse_custom_config: attributes to keep.
        backend_config: its fuser methods are run where its patterns match, before our own fusions, which are the same
            for all backends.
        example_inputs: what the model is called with, if known. A batch norm after a linear layer is folded where its
            input has two axes; without examples the folded layer raises when it is called with another input.
        passes: your own passes by the stage they run after.

    Raises:
        ModelStateError: batch norm or dropout is in training mode.
        CaptureError: the model cannot be traced.

    Example:
        >>> import torch, qfx
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
        >>> [name for name, _ in qfx.fuse_fx(model).named_children()]
        ['0']
    """
    return _fused(model, fuse_custom_config, backend_config, example_inputs, passes, is_qat=False)


@no_collections()
def fuse_qat_fx(
    model: nn.Module,
    fuse_custom_config: FuseCustomConfig | dict[str, Any] | None = None,
    backend_config: BackendConfig | dict[str, Any] | None = None,
) -> FusedGraphModule:
    """`fuse_fx` for training: a batch norm becomes one module with the layer before it, and goes on to train.

    Args:
        model: a module in any mode; not changed.
        fuse_custom_config, backend_config: as for `fuse_fx`.

    Raises:
        CaptureError: the model cannot be traced.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).train()
        >>> type(fuse_qat_fx(model).get_submodule("0")).__name__
        'ConvBn2d'
    """
    return _fused(model, fuse_custom_config, backend_config, None, None, is_qat=True)


def _fused(
    model: nn.Module,
    fuse_custom_config: Any,
    backend_config: Any,
    example_inputs: tuple[Any, ...] | dict[str, Any] | None,
    passes: dict[str, list[Step]] | None,
    *,
    is_qat: bool,
) -> FusedGraphModule:
    custom = as_config(FuseCustomConfig, fuse_custom_config, "fuse_custom_config") or FuseCustomConfig()
    backend = as_config(BackendConfig, backend_config, "backend_config")
    gm = capture(model, examples=as_examples(example_inputs, model), inference=not is_qat, draft=True, keeps=_KEEPS)
    run_steps(gm, Pipeline("fuse", with_passes(prepare_stages(backend, is_qat=is_qat), passes)).steps)
    plain_names(gm.graph)
    preserve(model, gm, custom.preserved_attributes)
    made = FusedGraphModule.adopt(gm)
    assert isinstance(made, FusedGraphModule)
    return made
