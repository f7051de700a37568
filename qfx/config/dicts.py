"""What reading and printing configuration dictionaries have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qfx.errors import ConfigError
from qfx.frames import warn


def check_keys(owner: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise ConfigError if ``given`` is no dictionary; warn of the keys nobody reads.

    A key nobody reads is a warning and no error: dictionaries written for other versions stay readable.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{owner}.from_dict takes a dictionary, got {type(given).__name__}")
    known = list(known)
    unknown = [key for key in given if key not in known]
    if unknown:
        warn(f"{owner}.from_dict ignores {', '.join(map(repr, unknown))}; it reads {', '.join(map(repr, known))}")


def check_list(owner: str, key: str, given: Any) -> list[Any]:
    """Return the list under ``key``, copied; a single string, the usual mistake, is an error."""
    if not isinstance(given, (list, tuple)):
        raise ConfigError(f"{owner}: {key!r} takes a list, got {given!r}; write [{given!r}]")
    return list(given)


def get_combined_dict(default_dict: dict[Any, Any], additional_dict: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a copy of a dictionary with the entries of another added; where both have a key, the other's stands.

    Example:
        >>> get_combined_dict({"a": 1, "b": 1}, {"b": 2})
        {'a': 1, 'b': 2}
    """
    return {**default_dict, **additional_dict}


class PrintedFields:
    """Prints as ``Name({attribute: value, ...})`` with the attributes that say something."""

    def __repr__(self) -> str:
        said = {name: value for name, value in vars(self).items() if not _is_empty(value)}
        return f"{type(self).__name__}({said})"


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, (dict, list, tuple)) and not value)
