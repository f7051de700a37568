"""A prepared model whose layers have been equalized by column, before it is converted."""

from __future__ import annotations

from typing import Any

from qfx.api.modules import ObservedGraphModule
from qfx.errors import ConfigError
from qfx.passes.input_weight import equalize_columns
from qfx.passes.pipeline import Context

WHY = "it scales the columns of an input, for equalization"


def equalize_in(context: Context) -> None:
    """Equalize the layers of a copy of a prepared model whose columns were watched; its plan says so afterwards."""
    gm: Any = context.view.gm
    qconfigs = {name: instance["qconfig"] for name, instance in gm.plan["instances"].items()}
    products = equalize_columns(context, gm.plan["columns"], qconfigs)
    floats = {**gm.plan["float"], **dict.fromkeys(products, WHY)}
    gm.plan = {**gm.plan, "float": floats, "columns": {}}


def equalized(prepared: ObservedGraphModule) -> ObservedGraphModule:
    """What `convert_fx` makes of a calibrated model first, where it was prepared with an `EqualizationQConfig`.

    Args:
        prepared: a calibrated model. Not changed.

    Returns:
        A prepared model with the equalized weights, products that scale inputs where no weight does, and observers
        that know the ranges of the scaled inputs.

    Raises:
        ConfigError: it was not prepared.
    """
    if not isinstance(prepared, ObservedGraphModule):
        raise ConfigError(f"equalized takes what prepare_fx returned, got {type(prepared).__name__}")
    gm = prepared.draft()
    if gm.plan.get("columns"):
        equalize_in(Context.of(gm))
    made = ObservedGraphModule.adopt(gm)
    assert isinstance(made, ObservedGraphModule)
    return made
