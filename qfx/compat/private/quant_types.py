"""Names of the kinds of quantization in dictionaries (``quant_type``)."""

from __future__ import annotations

from qfx.config import QuantType

_quant_type_to_str = {kind: kind.key for kind in QuantType}


def _get_quant_type_to_str(quant_type: QuantType) -> str:
    """The name of a kind of quantization, ``"weight_only"`` say."""
    return quant_type.key


def _quant_type_from_str(name: str) -> QuantType:
    """The kind of quantization of that name.

    Raises:
        ConfigError: there is none.
    """
    return QuantType.from_key(name)
