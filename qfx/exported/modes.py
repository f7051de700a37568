"""Training and evaluation of an exported model."""

from __future__ import annotations

import types
from typing import Any

from torch.fx import GraphModule

from qfx.errors import ConfigError
from qfx.passes.modes import switch_modes


def move_exported_model_to_eval(model: GraphModule) -> GraphModule:
    """Switch an exported model to evaluation, in place: dropout passes values on, batch norm uses what it learned.

    Every dropout keeps its own p, every batch norm its own eps and momentum, so that the way back gives the model as it
    was. A batch norm without running statistics goes on normalizing by the batch, as the module does.

    Args:
        model: ``torch.export.export(...).module()``, captured in either mode.

    Returns:
        ``model``.

    Raises:
        ConfigError: not a graph module.
        ModelStateError: a batch norm was decomposed (``run_decompositions``) and has no form for evaluation.

    Example:
        >>> import torch
        >>> exported = torch.export.export(torch.nn.Dropout(0.5).train(), (torch.ones(4),)).module()
        >>> move_exported_model_to_eval(exported)(torch.ones(4))
        tensor([1., 1., 1., 1.])
    """
    return _moved(model, training=False)


def move_exported_model_to_train(model: GraphModule) -> GraphModule:
    """Switch an exported model to training, in place: dropout drops, batch norm follows the batches.

    A model captured in evaluation does not count batches (``num_batches_tracked``), which nothing but a batch norm with
    ``momentum=None`` reads, and torch exports none of those. Dropout whose call the capture left out (a function with
    ``training=False``, attention with ``dropout_p=0.0``) stays out.

    Args:
        model: ``torch.export.export(...).module()``, captured in either mode.

    Returns:
        ``model``.

    Raises:
        ConfigError: not a graph module.
        ModelStateError: a batch norm was decomposed (``run_decompositions``) and has no form for training.
    """
    return _moved(model, training=True)


def allow_exported_model_train_eval(model: GraphModule) -> GraphModule:
    """Make ``model.train()`` and ``model.eval()`` of an exported model switch its mode, in place.

    torch lets both raise. As with any module they return the model, and ``model.train(False)`` means ``model.eval()``.

    Args:
        model: ``torch.export.export(...).module()``.

    Returns:
        ``model``.

    Raises:
        ConfigError: not a graph module.
    """
    _check(model)

    def train(self: GraphModule, mode: bool = True) -> GraphModule:
        return _moved(self, training=mode)

    def evaluate(self: GraphModule) -> GraphModule:
        return _moved(self, training=False)

    methods: Any = model
    methods.train = types.MethodType(train, model)
    methods.eval = types.MethodType(evaluate, model)
    return model


def _moved(model: GraphModule, *, training: bool) -> GraphModule:
    _check(model)
    switch_modes(model, training)
    for module in model.modules():
        module.training = training
    return model


def _check(model: object) -> None:
    if not isinstance(model, GraphModule):
        raise ConfigError(
            f"this is for the graph module of an exported model, got {type(model).__name__}; give it "
            "torch.export.export(model, inputs).module()"
        )
