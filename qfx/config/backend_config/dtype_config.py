"""DTypeConfig: the dtypes a backend takes for one pattern, and limits on scales and codes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from qfx.config.dicts import check_keys
from qfx.errors import ConfigError


@dataclass
class DTypeWithConstraints:
    """A dtype, and what a backend asks of the scale, zero point and codes that go with it.

    ``None`` anywhere means *any*. Configurations that fall outside are not quantized for this backend.

    Args:
        dtype: the dtype.
        quant_min_lower_bound: codes must not go below this.
        quant_max_upper_bound: codes must not go above this.
        scale_min_lower_bound: the observer's ``eps``, its smallest scale, must be at least this.
        scale_max_upper_bound: no scale may be larger; kept for configurations that name it.
        scale_exact_match: the observer must have exactly this scale, fixed beforehand.
        zero_point_exact_match: the observer must have exactly this zero point, fixed beforehand.
    """

    dtype: torch.dtype | None = None
    quant_min_lower_bound: int | float | None = None
    quant_max_upper_bound: int | float | None = None
    scale_min_lower_bound: int | float | None = None
    scale_max_upper_bound: int | float | None = None
    scale_exact_match: float | None = None
    zero_point_exact_match: int | None = None

    __hash__ = None  # type: ignore[assignment]  # can be changed, so must not be a key


_ROLES = ("input_dtype", "output_dtype", "weight_dtype")


@dataclass(init=False)
class DTypeConfig:
    """The dtypes a backend takes for one pattern.

    Args:
        input_dtype: of activations that go in, plain or with constraints.
        output_dtype: of the activation that comes out.
        weight_dtype: of the weight.
        bias_dtype: of the bias.
        is_dynamic: the scale of the input is chosen per call.

    Attributes:
        input_dtype_with_constraints, output_dtype_with_constraints, weight_dtype_with_constraints: the first three as
            ``DTypeWithConstraints``; ``input_dtype`` and so on return their plain dtypes.

    Raises:
        ConfigError: something that is no dtype.

    Example:
        >>> DTypeConfig(input_dtype=torch.quint8, output_dtype=torch.quint8).input_dtype
        torch.quint8
    """

    input_dtype_with_constraints: DTypeWithConstraints
    output_dtype_with_constraints: DTypeWithConstraints
    weight_dtype_with_constraints: DTypeWithConstraints
    bias_dtype: torch.dtype | None
    is_dynamic: bool | None

    def __init__(
        self,
        input_dtype: torch.dtype | DTypeWithConstraints | None = None,
        output_dtype: torch.dtype | DTypeWithConstraints | None = None,
        weight_dtype: torch.dtype | DTypeWithConstraints | None = None,
        bias_dtype: torch.dtype | None = None,
        is_dynamic: bool | None = None,
    ) -> None:
        self.input_dtype_with_constraints = _constrained("input_dtype", input_dtype)
        self.output_dtype_with_constraints = _constrained("output_dtype", output_dtype)
        self.weight_dtype_with_constraints = _constrained("weight_dtype", weight_dtype)
        if bias_dtype is not None and not isinstance(bias_dtype, torch.dtype):
            raise ConfigError(f"bias_dtype is a torch.dtype, got {bias_dtype!r}")
        self.bias_dtype = bias_dtype
        self.is_dynamic = is_dynamic

    @property
    def input_dtype(self) -> torch.dtype | None:
        """Dtype of inputs, without constraints."""
        return self.input_dtype_with_constraints.dtype

    @property
    def output_dtype(self) -> torch.dtype | None:
        """Dtype of the output, without constraints."""
        return self.output_dtype_with_constraints.dtype

    @property
    def weight_dtype(self) -> torch.dtype | None:
        """Dtype of the weight, without constraints."""
        return self.weight_dtype_with_constraints.dtype

    @classmethod
    def from_dict(cls, dtype_config_dict: dict[str, Any]) -> DTypeConfig:
        """Return what ``to_dict`` wrote; plain dtypes are read as well, keys may be left out.

        Raises:
            ConfigError: something that is no dtype.
        """
        known = (*_ROLES, "bias_dtype", "is_dynamic")
        check_keys(cls.__name__, dtype_config_dict, known)
        return cls(**{key: dtype_config_dict[key] for key in known if key in dtype_config_dict})

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of what was set, dtypes with their constraints."""
        said: dict[str, Any] = {
            role: getattr(self, f"{role}_with_constraints") for role in _ROLES if getattr(self, role) is not None
        }
        return said | {key: kept for key in ("bias_dtype", "is_dynamic") if (kept := getattr(self, key)) is not None}

    __hash__ = None  # type: ignore[assignment]


def _constrained(role: str, given: torch.dtype | DTypeWithConstraints | None) -> DTypeWithConstraints:
    if given is None or isinstance(given, torch.dtype):
        return DTypeWithConstraints(dtype=given)
    if isinstance(given, DTypeWithConstraints):
        return given
    raise ConfigError(f"{role} is a torch.dtype or a DTypeWithConstraints, got {given!r}")


def constraints_of(wanted: DTypeWithConstraints) -> dict[str, Any]:
    """Return the constraints that were set, by name."""
    return {name: bound for name, bound in asdict(wanted).items() if name != "dtype" and bound is not None}
