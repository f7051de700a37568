"""Quantization of PyTorch models on one small graph engine.

Example:
    >>> import torch, qfx
    >>> from qfx import ops
    >>> @qfx.pattern
    ... def double_relu(x):
    ...     return ops.relu(ops.relu(x))
    >>> @qfx.rule(double_relu)
    ... def one_relu(m, g):
    ...     return g.call(ops.relu, m.x)
    >>> gm = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU()))
    >>> len(qfx.rewrite(gm, [one_relu]).graph.nodes)
    3
"""

from __future__ import annotations

from qfx.observers import *  # noqa: F403  (the public observers, listed in qfx.observers.__all__)
from qfx.passes import FunctionPass as FunctionPass
from qfx.passes import Pass as Pass
from qfx.passes import Pipeline as Pipeline
from qfx.passes import Rewriter as Rewriter
from qfx.passes import owned as owned
from qfx.passes import rewrite as rewrite
from qfx.passes import rule as rule
from qfx.patterns import Reject as Reject
from qfx.patterns import any_of as any_of
from qfx.patterns import const as const
from qfx.patterns import maybe as maybe
from qfx.patterns import pattern as pattern
from qfx.tracing import trace as trace
