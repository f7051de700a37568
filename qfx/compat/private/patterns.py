"""Registries of patterns from before there were backend configs (``fx.pattern_utils``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qfx.fake_quantize import FixedQParamsFakeQuantize

_DEFAULT_FUSION_PATTERNS: dict[Any, Any] = {}
_DEFAULT_QUANTIZATION_PATTERNS: dict[Any, Any] = {}
_DEFAULT_OUTPUT_FAKE_QUANTIZE_MAP: dict[Any, Any] = {}
_DEFAULT_OUTPUT_OBSERVER_MAP: dict[Any, Any] = {}


def _register_fusion_pattern(pattern: Any) -> Callable[[Any], Any]:
    """A decorator that files a class as the fusion handler of `pattern`; qfx itself reads no such registry."""

    def register(handler: Any) -> Any:
        _DEFAULT_FUSION_PATTERNS[pattern] = handler
        return handler

    return register


def _register_quant_pattern(pattern: Any, fixed_qparams_observer: Any = None) -> Callable[[Any], Any]:
    """A decorator that files a class as the handler of `pattern`, and the observer of its result."""

    def register(handler: Any) -> Any:
        _DEFAULT_QUANTIZATION_PATTERNS[pattern] = handler
        if fixed_qparams_observer is not None:
            fake = FixedQParamsFakeQuantize.with_args(observer=fixed_qparams_observer)
            _DEFAULT_OUTPUT_FAKE_QUANTIZE_MAP[pattern] = fake
            _DEFAULT_OUTPUT_OBSERVER_MAP[pattern] = fixed_qparams_observer
        return handler

    return register


def get_default_fusion_patterns() -> dict[Any, Any]:
    """A copy of the registered fusion patterns."""
    return dict(_DEFAULT_FUSION_PATTERNS)


def get_default_quant_patterns() -> dict[Any, Any]:
    """A copy of the registered patterns."""
    return dict(_DEFAULT_QUANTIZATION_PATTERNS)


def get_default_output_activation_post_process_map(is_training: bool) -> dict[Any, Any]:
    """What observes the results of ops with a known range: fake-quantize modules in training, else observers."""
    return dict(_DEFAULT_OUTPUT_FAKE_QUANTIZE_MAP if is_training else _DEFAULT_OUTPUT_OBSERVER_MAP)


def _sorted_patterns_dict(patterns_dict: dict[Any, Any]) -> dict[Any, Any]:
    """The patterns, those of most parts first."""

    def size(pattern: Any) -> int:
        return sum(map(size, pattern)) if isinstance(pattern, tuple) else 1

    return dict(sorted(patterns_dict.items(), key=lambda item: -size(item[0])))
