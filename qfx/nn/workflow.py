"""What modules that observe and quantize their own insides need of eager mode.

Eager mode is built on these modules, so they cannot import it: it hands its functions over when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qfx.errors import ConfigError


@dataclass(frozen=True)
class Workflow:
    """The functions of eager mode.

    Attributes:
        prepare, prepare_qat: put observers, or fake-quantizes, into a module with a ``qconfig``, in place.
        convert: a copy of a prepared module with integer modules inside, without ``qconfig``.
    """

    prepare: Callable[[Any], Any]
    prepare_qat: Callable[[Any], Any]
    convert: Callable[[Any], Any]


_provided: list[Workflow] = []


def provide(workflow: Workflow) -> None:
    """Make ``workflow`` what custom modules use from now on."""
    _provided[:] = [workflow]


def workflow() -> Workflow:
    """The workflow that was provided last.

    Raises:
        ConfigError: there is none.
    """
    if not _provided:
        raise ConfigError("no eager mode is loaded that could prepare or convert this module; import qfx.eager first")
    return _provided[0]
