"""Which entry of a mapping decides for one operator, and which entries decided for none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn

from qfx.config.default_mappings import DEFAULT_OBJECT_TYPES
from qfx.config.names import public_name
from qfx.config.qconfig import QConfigAny
from qfx.config.qconfig_mapping import (
    MODULE_NAME_KEY,
    MODULE_NAME_OBJECT_TYPE_ORDER_KEY,
    MODULE_NAME_REGEX_KEY,
    OBJECT_TYPE_KEY,
    QConfigMapping,
)
from qfx.errors import ConfigError

GLOBAL = "global"


class Entry(NamedTuple):
    """One line of a mapping: the kind of entry and what it is about; ``str`` says it as a user would."""

    kind: str
    key: Any = None

    def __str__(self) -> str:
        if self.kind == GLOBAL:
            return GLOBAL
        if self.kind == MODULE_NAME_OBJECT_TYPE_ORDER_KEY:
            path, object_type, index = self.key
            return f"{self.kind} ({path!r}, {public_name(object_type)}, {index})"
        return f"{self.kind} {public_name(self.key)}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configuration of one operator and the entry that decided it.

    Attributes:
        qconfig: ``None`` means float.
        entry: the line of the mapping; collect these and give them to ``unused_entries``.
        asked: what was looked up, to ask another mapping the same: arguments of ``resolve``.
    """

    qconfig: QConfigAny
    entry: Entry
    asked: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def why(self) -> str:
        """The deciding line in words: ``"global"``, ``"object_type torch.nn.Conv2d"``, ``"module_name 'layer1'"``."""
        return str(self.entry)


def resolve(
    mapping: QConfigMapping,
    *,
    object_types: Sequence[Any],
    module_path: str,
    index: int,
    scope: str | None = None,
    scope_type: type | None = None,
) -> Resolved:
    """Return the configuration of one operator.

    The most specific entry wins: order in a module, then module name (the innermost module that has one), then
    regular expression (the first that matches at the beginning of the path), then object type, then global.

    Args:
        mapping: where to look.
        object_types: what the operator is called in object-type entries, the preferred name first: a module class, a
            function, a method name.
        module_path: path of the module, for a module; of the module whose ``forward`` calls it, for a function.
        index: which call of this type it is in that ``forward``, from 0.
        scope: path of the module whose ``forward`` makes the call. By default the parent of ``module_path`` where the
            first object type is a module class, else ``module_path`` itself.
        scope_type: class of the module whose ``forward`` calls a function. An object-type entry for it speaks for all
            calls made there, before one for the function itself. ``None`` where the model's own ``forward`` calls it:
            a model is no layer of itself.

    Returns:
        The configuration and the entry that decided it; ``None`` from the global entry where the mapping has none.

    Example:
        >>> from torch import nn
        >>> mapping = QConfigMapping().set_module_name("body", None)
        >>> resolve(mapping, object_types=[nn.Conv2d], module_path="body.conv", index=0).why
        "module_name 'body'"
    """
    if scope is None:
        scope = _parent(module_path) if object_types and _is_module_class(object_types[0]) else module_path
    for object_type in object_types:
        key = (scope, object_type, index)
        if key in mapping.module_name_object_type_order_qconfigs:
            found = mapping.module_name_object_type_order_qconfigs[key]
            return Resolved(found, Entry(MODULE_NAME_OBJECT_TYPE_ORDER_KEY, key))
    return (
        _by_module_name(mapping, module_path)
        or _by_regex(mapping, module_path)
        or _by_object_type(mapping, (scope_type, *object_types))
        or Resolved(mapping.global_qconfig, Entry(GLOBAL))
    )


def entries(mapping: QConfigMapping) -> list[Entry]:
    """Return every entry of a mapping but the global one, most general first."""
    tables = (
        (OBJECT_TYPE_KEY, mapping.object_type_qconfigs),
        (MODULE_NAME_REGEX_KEY, mapping.module_name_regex_qconfigs),
        (MODULE_NAME_KEY, mapping.module_name_qconfigs),
        (MODULE_NAME_OBJECT_TYPE_ORDER_KEY, mapping.module_name_object_type_order_qconfigs),
    )
    return [Entry(kind, key) for kind, table in tables for key in table]


def unused_entries(mapping: QConfigMapping, used: Iterable[Entry]) -> list[Entry]:
    """Return the entries that decided for no operator: usually a name the model does not have.

    An entry is also unused where a more specific one always won. Object types of the default mappings are not listed:
    a model without a PReLU is no mistake.

    Args:
        mapping: what was looked up.
        used: the ``entry`` of every ``Resolved``.
    """
    seen = set(used)
    return [entry for entry in entries(mapping) if entry not in seen and not is_default(entry)]


def is_default(entry: Entry) -> bool:
    """Whether the default mappings have an entry for the same object type, so that it may not be the user's own."""
    return entry.kind == OBJECT_TYPE_KEY and entry.key in DEFAULT_OBJECT_TYPES


def _by_module_name(mapping: QConfigMapping, path: str) -> Resolved | None:
    table = mapping.module_name_qconfigs
    while table and path:
        if path in table:
            return Resolved(table[path], Entry(MODULE_NAME_KEY, path))
        path = _parent(path)
    return None


def _by_regex(mapping: QConfigMapping, path: str) -> Resolved | None:
    for pattern, qconfig in mapping.module_name_regex_qconfigs.items():
        try:
            matches = re.match(pattern, path)
        except re.error as error:
            raise ConfigError(f"module_name_regex {pattern!r} is no regular expression: {error}") from error
        if matches:
            return Resolved(qconfig, Entry(MODULE_NAME_REGEX_KEY, pattern))
    return None


def _by_object_type(mapping: QConfigMapping, names: Iterable[Any]) -> Resolved | None:
    table = mapping.object_type_qconfigs
    for name in names:
        if name is not None and name in table:
            return Resolved(table[name], Entry(OBJECT_TYPE_KEY, name))
    return None


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _is_module_class(name: object) -> bool:
    return isinstance(name, type) and issubclass(name, nn.Module)
