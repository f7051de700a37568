"""What the observer a factory makes will do, without keeping one for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from qfx.config.names import public_name
from qfx.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ObserverFacts:
    """Facts of the observer a factory makes; ``None`` where its class has no such thing.

    Attributes:
        dtype: what it quantizes to, as given (``torch.quint8`` included).
        qscheme: per tensor or channel, affine or symmetric.
        quant_min: smallest code.
        quant_max: largest code.
        eps: smallest scale it returns.
        scale: the scale, if fixed beforehand.
        zero_point: the zero point, if fixed beforehand.
        ch_axis: the axis with a scale per index.
        is_dynamic: the scale is chosen per call.
        kind: name of its class.
    """

    dtype: torch.dtype | None = None
    qscheme: torch.qscheme | None = None
    quant_min: int | None = None
    quant_max: int | None = None
    eps: float | None = None
    scale: float | None = None
    zero_point: int | None = None
    ch_axis: int | None = None
    is_dynamic: bool = False
    kind: str = "None"


@lru_cache(maxsize=512)
def observer_facts(factory: Any) -> ObserverFacts:
    """Return the facts of the observer ``factory()`` makes; it is called once and the answer kept.

    A fake-quantize module answers for itself and, where it says nothing, for the observer inside it.

    Raises:
        ConfigError: ``factory`` cannot be called without arguments or makes something without a dtype.
    """
    if factory is None:
        return ObserverFacts()
    if not callable(factory):
        raise ConfigError(f"a QConfig holds observer classes or factories, got {factory!r}")
    try:
        made = factory()
    except TypeError as error:
        raise ConfigError(
            f"{public_name(factory)} cannot be called without arguments ({error}); fix them with with_args(...)"
        ) from error
    if isinstance(made, torch.nn.Identity):
        return ObserverFacts(dtype=torch.float32, kind="Identity")
    inner = getattr(made, "activation_post_process", made)
    dtype = _first(made, inner, "dtype")
    if dtype is None:
        raise ConfigError(f"{public_name(factory)} makes a {type(made).__name__}: without a dtype it is no observer")
    return ObserverFacts(
        dtype=dtype,
        qscheme=_first(made, inner, "qscheme"),
        quant_min=_first(made, inner, "quant_min"),
        quant_max=_first(made, inner, "quant_max"),
        eps=_number(_first(made, inner, "eps")),
        scale=_fixed(inner, "scale"),
        zero_point=_fixed(inner, "zero_point"),
        ch_axis=_first(made, inner, "ch_axis"),
        is_dynamic=bool(_first(made, inner, "is_dynamic")),
        kind=type(inner).__name__,
    )


def _first(made: Any, inner: Any, name: str) -> Any:
    outer = getattr(made, name, None)
    return getattr(inner, name, None) if outer is None else outer


def _number(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else None
    return value


def _fixed(inner: Any, name: str) -> Any:
    # Only an observer that knows its scale before it has seen anything has it as an attribute.
    return _number(getattr(inner, name, None))
