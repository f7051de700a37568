"""One tree of exceptions.

Every message says what was wrong, where (node, module path, source line) and what to do about it. Classes also derive
from the builtin a caller of the original API would have caught, so ``except ValueError`` keeps working.
"""

from __future__ import annotations


class QfxError(Exception):
    """Root of every error qfx raises on purpose."""


class ConfigError(QfxError, ValueError, AssertionError):
    """A configuration asks for something that does not exist or contradicts itself.

    The original asserts most of what this says.
    """


class UnsupportedConfigError(ConfigError, NotImplementedError):
    """What a configuration asks for has a meaning, and no implementation."""


class CaptureError(QfxError):
    """The model cannot be turned into a graph; the message names the place and the way out."""


class ModelStateError(QfxError, ValueError, AssertionError):
    """The model is in a state the request does not fit, such as training mode for post-training quantization."""


class PatternError(QfxError):
    """A pattern is malformed; raised where it is defined, with file and line."""


class RuleError(QfxError):
    """A rule raised or returned something unusable; the graph is as it was before the rule ran."""


class NonTermination(RuleError):
    """A rule keeps firing on its own output."""


class PassError(QfxError):
    """A pass failed; names the passes that had already run."""


class SpecError(QfxError):
    """Observation specs contradict each other; names both sites and who asked for them."""


class ObservationError(QfxError, ValueError, AssertionError):
    """An observer saw something it cannot take (NaN, integers, nothing at all)."""


class KernelError(QfxError, RuntimeError):
    """A kernel was given something it does not take."""


class DowngradeError(QfxError):
    """``strict=True`` and something would have been left float, ignored or approximated."""
