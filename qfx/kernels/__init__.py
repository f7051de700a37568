"""Integer kernels: exact references, the tables that pick an engine for each layer, and kernels on plain tensors."""

from __future__ import annotations

from qfx.kernels.engines import EngineChoice, LayerFacts, choose_engine, engine_for
from qfx.reject import Reject

__all__ = ["EngineChoice", "LayerFacts", "Reject", "choose_engine", "engine_for"]
