"""QConfigMapping: which layer gets which QConfig."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from qfx.config.dicts import check_keys
from qfx.config.qconfig import QConfig, QConfigAny
from qfx.errors import ConfigError
from qfx.observers.equalization import EqualizationQConfig

GLOBAL_KEY = ""
OBJECT_TYPE_KEY = "object_type"
MODULE_NAME_REGEX_KEY = "module_name_regex"
MODULE_NAME_KEY = "module_name"
MODULE_NAME_OBJECT_TYPE_ORDER_KEY = "module_name_object_type_order"

ObjectType: TypeAlias = Callable[..., Any] | str
"""A module class, a function, or the name of a tensor method."""

OrderKey: TypeAlias = tuple[str, ObjectType, int]
"""Path of the module that makes the call, what it calls, and which of these calls it is."""


class QConfigMapping:
    """Which layer gets which configuration.

    Entries from the most general to the most specific; a more specific one wins:

    1. ``set_global``: everything.
    2. ``set_object_type``: every layer of a class, every call of a function, or of a tensor method by name.
    3. ``set_module_name_regex``: what lies in a module whose path matches; the first entry that matches wins.
    4. ``set_module_name``: what lies in this module; of nested ones the innermost.
    5. ``set_module_name_object_type_order``: the n-th call of one type made in one module's ``forward``.

    ``None`` instead of a ``QConfig`` leaves the layer float. Setters return the mapping, so they chain; setting an
    entry again replaces it in place.

    Attributes:
        global_qconfig, object_type_qconfigs, module_name_regex_qconfigs, module_name_qconfigs,
        module_name_object_type_order_qconfigs: what was set, in order.

    Example:
        >>> from qfx.config import default_qconfig
        >>> mapping = QConfigMapping().set_global(default_qconfig).set_object_type("reshape", None)
        >>> mapping.to_dict()["object_type"]
        [('reshape', None)]
    """

    def __init__(self) -> None:
        self.global_qconfig: QConfigAny = None
        self.object_type_qconfigs: OrderedDict[ObjectType, QConfigAny] = OrderedDict()
        self.module_name_regex_qconfigs: OrderedDict[str, QConfigAny] = OrderedDict()
        self.module_name_qconfigs: OrderedDict[str, QConfigAny] = OrderedDict()
        self.module_name_object_type_order_qconfigs: OrderedDict[OrderKey, QConfigAny] = OrderedDict()

    def set_global(self, global_qconfig: QConfigAny) -> QConfigMapping:
        """Set the configuration of everything no other entry speaks of."""
        self.global_qconfig = _checked(global_qconfig)
        return self

    def set_object_type(self, object_type: ObjectType, qconfig: QConfigAny) -> QConfigMapping:
        """Set the configuration of a module class, a function, or a tensor method given by its name.

        Raises:
            ConfigError: something else than those, or no ``QConfig``.
        """
        self.object_type_qconfigs[_object_type(object_type)] = _checked(qconfig)
        return self

    def set_module_name_regex(self, module_name_regex: str, qconfig: QConfigAny) -> QConfigMapping:
        """Set the configuration of modules whose path begins with a match of a regular expression.

        Entries are tried in the order they were set and the first that matches wins: set the special ones first.

        Raises:
            ConfigError: not a string, or no ``QConfig``.
        """
        self.module_name_regex_qconfigs[_text("module_name_regex", module_name_regex)] = _checked(qconfig)
        return self

    def set_module_name(self, module_name: str, qconfig: QConfigAny) -> QConfigMapping:
        """Set the configuration of the module with this path, of what lies in it, and of the calls it makes.

        Raises:
            ConfigError: not a string, or no ``QConfig``.
        """
        self.module_name_qconfigs[_text("module_name", module_name)] = _checked(qconfig)
        return self

    def set_module_name_object_type_order(
        self, module_name: str, object_type: Callable[..., Any] | str, index: int, qconfig: QConfigAny
    ) -> QConfigMapping:
        """Set the configuration of the ``index``-th call of one type that one module's own ``forward`` makes.

        Args:
            module_name: path of the module that makes the call; ``""`` is the model itself.
            object_type: the class, function or method name called.
            index: counts calls of this type in this module, from 0.
            qconfig: what that call gets.

        Raises:
            ConfigError: an argument of another type, or a negative index.
        """
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise ConfigError(f"the index of a module_name_object_type_order entry counts from 0, got {index!r}")
        key = (_text("module_name", module_name), _object_type(object_type), index)
        self.module_name_object_type_order_qconfigs[key] = _checked(qconfig)
        return self

    def __repr__(self) -> str:
        lines = []
        for name, held in vars(self).items():
            lines.append(f" {name}")
            table = isinstance(held, dict) and held
            lines += [f"  {key}: {qconfig}" for key, qconfig in held.items()] if table else [f"  {held}"]
        return "\n".join((f"{type(self).__name__} (", *lines, ")"))

    def to_dict(self) -> dict[str, Any]:
        """Return the entries as a dictionary with keys ``""``, ``"object_type"`` ... that ``from_dict`` reads."""
        return {
            GLOBAL_KEY: self.global_qconfig,
            OBJECT_TYPE_KEY: list(self.object_type_qconfigs.items()),
            MODULE_NAME_REGEX_KEY: list(self.module_name_regex_qconfigs.items()),
            MODULE_NAME_KEY: list(self.module_name_qconfigs.items()),
            MODULE_NAME_OBJECT_TYPE_ORDER_KEY: [
                (*key, qconfig) for key, qconfig in self.module_name_object_type_order_qconfigs.items()
            ],
        }

    @classmethod
    def from_dict(cls, qconfig_dict: dict[str, Any]) -> QConfigMapping:
        """Return the mapping ``to_dict`` wrote; keys may be left out, ones nobody reads get a warning.

        Raises:
            ConfigError: an entry has the wrong length or holds something it cannot.
        """
        mapping = cls()
        setters: Mapping[str, tuple[int, Callable[..., QConfigMapping]]] = {
            OBJECT_TYPE_KEY: (2, mapping.set_object_type),
            MODULE_NAME_REGEX_KEY: (2, mapping.set_module_name_regex),
            MODULE_NAME_KEY: (2, mapping.set_module_name),
            MODULE_NAME_OBJECT_TYPE_ORDER_KEY: (4, mapping.set_module_name_object_type_order),
        }
        check_keys(cls.__name__, qconfig_dict, (GLOBAL_KEY, *setters))
        mapping.set_global(qconfig_dict.get(GLOBAL_KEY))
        for key, (length, setter) in setters.items():
            entries = qconfig_dict.get(key, ())
            for entry in entries.items() if isinstance(entries, Mapping) else entries:
                if not isinstance(entry, (tuple, list)) or len(entry) != length:
                    raise ConfigError(f"an entry under {key!r} is a tuple of {length}, got {entry!r}")
                setter(*entry)
        return mapping


def _checked(qconfig: object) -> QConfigAny:
    if qconfig is None or isinstance(qconfig, QConfig):
        return qconfig
    if isinstance(qconfig, list | dict) and not qconfig:  # how saved configurations of other libraries say None
        return None
    if isinstance(qconfig, EqualizationQConfig):  # in a mapping for _equalization_config
        return qconfig  # type: ignore[return-value]
    # A QConfig of another library, or a plain pair with its fields, says the same.
    if isinstance(qconfig, tuple) and getattr(qconfig, "_fields", None) == QConfig._fields:
        return QConfig(*qconfig)
    raise ConfigError(f"a mapping holds QConfigs or None, got {qconfig!r}; write QConfig(activation=..., weight=...)")


def _object_type(given: ObjectType) -> ObjectType:
    if isinstance(given, str) or callable(given):
        return given
    raise ConfigError(f"an object type is a module class, a function or the name of a tensor method, got {given!r}")


def _text(what: str, given: str) -> str:
    if isinstance(given, str):
        return given
    raise ConfigError(f"a {what} is a string, got {given!r}")
