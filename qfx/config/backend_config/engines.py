"""What PyTorch's quantized kernels take, by engine: one table each, composed of families of patterns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from qfx.config.backend_config import dtypes, unweighted, weighted
from qfx.config.backend_config.additions import convolution_additions
from qfx.config.backend_config.backend_config import BackendConfig
from qfx.config.backend_config.dtype_config import DTypeConfig
from qfx.config.backend_config.pattern_config import BackendPatternConfig

_DTypes: TypeAlias = tuple[DTypeConfig, ...]
_Family: TypeAlias = Callable[[_DTypes], list[BackendPatternConfig]]


def _nothing(_: _DTypes) -> list[BackendPatternConfig]:
    return []


@dataclass(frozen=True)
class _Engine:
    """The dtypes one engine takes for each kind of operator, and the families only some engines have.

    ``arithmetic``, ``fixed_range`` and ``same_range`` are those of ``plain`` operators unless given. ``linear`` is what
    linear layers take besides what weighted operators do, static and dynamic.
    """

    name: str
    weighted: _DTypes = (dtypes.weighted_int8,)
    plain: _DTypes = (dtypes.default_op_quint8,)
    arithmetic: _DTypes | None = None
    fixed_range: _DTypes | None = None
    same_range: _DTypes | None = None
    linear: _DTypes = ()
    dynamic: _DTypes = (dtypes.dynamic_int8, dtypes.dynamic_float16)
    embedding: _DTypes = (dtypes.weight_only_quint8, dtypes.weight_only_quint4x2)
    layer_norm: bool = False
    not_observed: bool = True
    after_convolutions: _Family = _nothing
    after_linears: _Family = _nothing

    def config(self) -> BackendConfig:
        """Return a new ``BackendConfig`` of this table."""
        linear = (*self.weighted, *self.dynamic, *self.linear)
        families = (
            weighted.convolutions(self.weighted),
            self.after_convolutions(self.weighted),
            weighted.linears(linear),
            self.after_linears(linear),
            unweighted.arithmetic(self.arithmetic or self.plain),
            unweighted.concatenations(self.plain),
            unweighted.own_range(self.plain),
            unweighted.fixed_range(self.fixed_range or self.plain),
            unweighted.same_range(self.same_range or self.plain),
            unweighted.not_observed(self.plain) if self.not_observed else [],
            weighted.batch_norms(self.plain),
            weighted.layer_norms((dtypes.layer_norm_int8,)) if self.layer_norm else [],
            weighted.recurrent(self.dynamic),
            weighted.embeddings(self.embedding),
        )
        made = BackendConfig(self.name)
        for family in families:
            made.set_backend_pattern_configs(family)
        return made


_NATIVE = _Engine("native", layer_norm=True)
_FBGEMM = _Engine("fbgemm")
# The x86 table names a weight dtype for operators without a weight too: kept, so that dictionaries stay the same.
_X86 = _Engine("x86", arithmetic=(dtypes.weighted_int8,), fixed_range=(dtypes.weighted_int8,))
_QNNPACK = _Engine(
    "qnnpack",
    weighted=(dtypes.weighted_qint8_symmetric, dtypes.weighted_int8),
    plain=(dtypes.default_op_qint8_symmetric, dtypes.default_op_quint8),
    not_observed=False,
)
_ONEDNN = _Engine(
    "onednn",
    dynamic=(dtypes.dynamic_int8,),
    embedding=(dtypes.weight_only_qint8,),
    layer_norm=True,
    not_observed=False,
    after_convolutions=convolution_additions,
    after_linears=weighted.linears_onednn,
)
_PLAIN_OR_HALF: _DTypes = (dtypes.default_op_quint8, dtypes.default_op_fp16)
_LEGACY = _Engine(
    "_native_and_fp16",
    arithmetic=_PLAIN_OR_HALF,
    fixed_range=_PLAIN_OR_HALF,
    same_range=_PLAIN_OR_HALF,
    linear=(dtypes.default_op_fp16,),
    layer_norm=True,
)


def get_native_backend_config() -> BackendConfig:
    """Return what PyTorch's quantized kernels take, whichever engine runs them; ``prepare_fx`` uses it by default.

    Each call returns a new ``BackendConfig``, so it may be changed.

    Example:
        >>> get_native_backend_config().name
        'native'
    """
    return _NATIVE.config()


def get_native_backend_config_dict() -> dict[str, Any]:
    """Return ``get_native_backend_config()`` as a dictionary."""
    return get_native_backend_config().to_dict()


def get_x86_backend_config() -> BackendConfig:
    """Return what the x86 engine takes, fbgemm and onednn together."""
    return _X86.config()


def get_fbgemm_backend_config() -> BackendConfig:
    """Return what the fbgemm engine takes."""
    return _FBGEMM.config()


def get_qnnpack_backend_config() -> BackendConfig:
    """Return what the qnnpack engine takes: XNNPACK's signed activations first, then unsigned ones."""
    return _QNNPACK.config()


def get_onednn_backend_config() -> BackendConfig:
    """Return what the onednn engine takes; it fuses leaky relu and tanh into linear besides."""
    return _ONEDNN.config()


def get_test_only_legacy_native_backend_config() -> BackendConfig:
    """Return the native backend config with static float16 besides, which tests of the original use."""
    return _LEGACY.config()


def get_test_only_legacy_native_backend_config_dict() -> dict[str, Any]:
    """Return ``get_test_only_legacy_native_backend_config()`` as a dictionary."""
    return get_test_only_legacy_native_backend_config().to_dict()
