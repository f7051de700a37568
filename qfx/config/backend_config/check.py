"""Whether a QConfig suits what a backend takes, and if not, why."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from qfx.config.backend_config.dtype_config import DTypeConfig, DTypeWithConstraints
from qfx.config.observer_facts import ObserverFacts, observer_facts
from qfx.config.qconfig import QConfig, reuses_input
from qfx.dtypes import is_integer, same_codes


def why_unsupported(qconfig: QConfig, dtype_config: DTypeConfig, *, has_weight: bool | None = None) -> str | None:
    """Return why a backend's dtypes do not suit a configuration, or None if they do.

    Inputs and output are checked against the activation observer, the weight against the weight observer: dtype,
    codes, smallest scale, and scale and zero point where the backend has them built in. A plain dtype means the
    quantized one of the same codes (``uint8`` means ``quint8``). Dtypes the backend leaves open suit everything. A
    configuration that reuses its input's parameters suits every activation.

    Args:
        qconfig: what the user wants.
        dtype_config: what the backend takes.
        has_weight: whether the operator has a weight; by default it has one where the backend names a weight dtype.

    Example:
        >>> from qfx.config import default_qconfig
        >>> why_unsupported(default_qconfig, DTypeConfig(input_dtype=torch.qint8))
        'input: the backend takes torch.qint8, the config asks for torch.quint8'
    """
    if not reuses_input(qconfig):
        activation = observer_facts(qconfig.activation)
        reason = _activation(activation, dtype_config)
        if reason is not None:
            return reason
    if has_weight is False:
        return None
    return _mismatch("weight", observer_facts(qconfig.weight), dtype_config.weight_dtype_with_constraints)


def first_supported(
    qconfig: QConfig, dtype_configs: Iterable[DTypeConfig], *, has_weight: bool | None = None
) -> tuple[DTypeConfig | None, str | None]:
    """Return the first dtype configuration that suits, or None and why: the reason of the first, and how many others.

    Args:
        qconfig: what the user wants.
        dtype_configs: what the backend takes, preferred first.
        has_weight: see ``why_unsupported``.
    """
    reasons = []
    for dtype_config in dtype_configs:
        reason = why_unsupported(qconfig, dtype_config, has_weight=has_weight)
        if reason is None:
            return dtype_config, None
        reasons.append(reason)
    if not reasons:
        return None, "the backend names no dtypes for this pattern"
    more = f" (and {len(reasons) - 1} more dtype configs do not suit either)" if len(reasons) > 1 else ""
    return None, reasons[0] + more


def _activation(facts: ObserverFacts, dtype_config: DTypeConfig) -> str | None:
    wanted_dynamic = bool(dtype_config.is_dynamic)
    if facts.is_dynamic != wanted_dynamic:
        said = {True: "dynamic", False: "static"}
        return f"input: the backend is {said[wanted_dynamic]} here, the config asks for {said[facts.is_dynamic]}"
    reason = _mismatch("input", facts, dtype_config.input_dtype_with_constraints)
    if reason is not None:
        return reason
    # With a scale per call the output stays float, whatever observer the input has.
    output = ObserverFacts(dtype=torch.float32, kind=facts.kind) if facts.is_dynamic else facts
    return _mismatch("output", output, dtype_config.output_dtype_with_constraints)


def _mismatch(role: str, facts: ObserverFacts, wanted: DTypeWithConstraints) -> str | None:
    if wanted.dtype is None:
        return None
    asked = torch.float32 if facts.dtype is None else facts.dtype
    if not same_codes(asked, wanted.dtype):
        return f"{role}: the backend takes {wanted.dtype}, the config asks for {asked}"
    if not is_integer(asked):
        return None
    return _codes(role, facts, wanted) or _scale(role, facts, wanted)


def _codes(role: str, facts: ObserverFacts, wanted: DTypeWithConstraints) -> str | None:
    low, high = wanted.quant_min_lower_bound, wanted.quant_max_upper_bound
    if low is None and high is None:
        return None
    if facts.quant_min is None or facts.quant_max is None:
        return f"{role}: the backend limits codes to {_span(low, high)}, {facts.kind} does not say its codes"
    if (low is not None and facts.quant_min < low) or (high is not None and facts.quant_max > high):
        has = _span(facts.quant_min, facts.quant_max)
        return f"{role}: the backend takes codes {_span(low, high)}, the config has {has}"
    return None


def _scale(role: str, facts: ObserverFacts, wanted: DTypeWithConstraints) -> str | None:
    bound = wanted.scale_min_lower_bound
    if bound is not None:
        if facts.eps is None:
            return f"{role}: the backend asks for scales of at least {bound}, {facts.kind} does not say its smallest"
        if facts.eps < bound:
            return f"{role}: the backend asks for scales of at least {bound}, the config's eps is {facts.eps}"
    for name, exact, has in (
        ("scale", wanted.scale_exact_match, facts.scale),
        ("zero point", wanted.zero_point_exact_match, facts.zero_point),
    ):
        if exact is None:
            continue
        if has is None:
            return (
                f"{role}: the kernel has {name} {exact} built in, {facts.kind} chooses its own; "
                "use a FixedQParamsObserver"
            )
        # Observers keep scales as float32, configurations as python floats.
        if torch.tensor(has, dtype=torch.float32) != torch.tensor(exact, dtype=torch.float32):
            return f"{role}: the kernel has {name} {exact} built in, the config has {has}"
    return None


def _span(low: float | None, high: float | None) -> str:
    return f"{'' if low is None else low}..{'' if high is None else high}"
