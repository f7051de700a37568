"""The graph modules the public functions return."""

from __future__ import annotations

from qfx.graph.kept import KeptGraphModule


class FusedGraphModule(KeptGraphModule):
    """What `fuse_fx` returns: float, with batch norm folded and relu merged."""


class ObservedGraphModule(KeptGraphModule):
    """What `prepare_fx` returns: float, with observers; run it on calibration data, then convert it."""


class ObservedStandaloneGraphModule(ObservedGraphModule):
    """A standalone module inside a prepared model, prepared as a model of its own."""


class QuantizedGraphModule(KeptGraphModule):
    """What `convert_fx` returns."""
