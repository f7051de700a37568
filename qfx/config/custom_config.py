"""Exceptions to a mapping: modules that stay whole, classes with their own quantized forms, what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from qfx.config.backend_config import BackendConfig
from qfx.config.dicts import PrintedFields, check_keys, check_list
from qfx.config.qconfig_mapping import QConfigMapping
from qfx.config.quant_type import QuantType
from qfx.errors import ConfigError

_STANDALONE_NAME = "standalone_module_name"
_STANDALONE_CLASS = "standalone_module_class"
_OBSERVED = "float_to_observed_custom_module_class"
_QUANTIZED = "observed_to_quantized_custom_module_class"
_PRESERVED = "preserved_attributes"

ClassMapping = dict[type[nn.Module], type[nn.Module]]


@dataclass
class StandaloneModuleConfigEntry:
    """How one standalone module is prepared; ``None`` takes what its surroundings have."""

    qconfig_mapping: QConfigMapping | None
    example_inputs: tuple[Any, ...]
    prepare_custom_config: PrepareCustomConfig | None
    backend_config: BackendConfig | None

    __hash__ = None  # type: ignore[assignment]


class PrepareCustomConfig(PrintedFields):
    """What ``prepare_fx`` treats differently. Setters return the configuration, so they chain.

    Example:
        >>> custom = PrepareCustomConfig().set_non_traceable_module_names(["decoder"]).set_output_quantized_indexes([0])
        >>> custom.to_dict()
        {'non_traceable_module_name': ['decoder'], 'output_quantized_idxs': [0]}
    """

    # Attribute -> key in dictionaries, for the plain lists.
    _LISTS = {  # noqa: RUF012
        "non_traceable_module_names": "non_traceable_module_name",
        "non_traceable_module_classes": "non_traceable_module_class",
        "input_quantized_indexes": "input_quantized_idxs",
        "output_quantized_indexes": "output_quantized_idxs",
        "preserved_attributes": _PRESERVED,
    }

    def __init__(self) -> None:
        self.standalone_module_names: dict[str, StandaloneModuleConfigEntry] = {}
        self.standalone_module_classes: dict[type[nn.Module], StandaloneModuleConfigEntry] = {}
        self.float_to_observed_mapping: dict[QuantType, ClassMapping] = {}
        self.non_traceable_module_names: list[str] = []
        self.non_traceable_module_classes: list[type[nn.Module]] = []
        self.input_quantized_indexes: list[int] = []
        self.output_quantized_indexes: list[int] = []
        self.preserved_attributes: list[str] = []

    def set_standalone_module_name(
        self,
        module_name: str,
        qconfig_mapping: QConfigMapping | None,
        example_inputs: tuple[Any, ...],
        prepare_custom_config: PrepareCustomConfig | None,
        backend_config: BackendConfig | None,
    ) -> PrepareCustomConfig:
        """Prepare the module with this path on its own, as one node of the graph around it.

        Args:
            module_name: path of the module.
            qconfig_mapping: its mapping; ``None`` for that of its surroundings.
            example_inputs: inputs of the module.
            prepare_custom_config: its exceptions.
            backend_config: its backend.
        """
        self.standalone_module_names[module_name] = StandaloneModuleConfigEntry(
            qconfig_mapping, example_inputs, prepare_custom_config, backend_config
        )
        return self

    def set_standalone_module_class(
        self,
        module_class: type[nn.Module],
        qconfig_mapping: QConfigMapping | None,
        example_inputs: tuple[Any, ...],
        prepare_custom_config: PrepareCustomConfig | None,
        backend_config: BackendConfig | None,
    ) -> PrepareCustomConfig:
        """Prepare every module of this class on its own; see ``set_standalone_module_name``."""
        self.standalone_module_classes[module_class] = StandaloneModuleConfigEntry(
            qconfig_mapping, example_inputs, prepare_custom_config, backend_config
        )
        return self

    def set_float_to_observed_mapping(
        self,
        float_class: type[nn.Module],
        observed_class: type[nn.Module],
        quant_type: QuantType = QuantType.STATIC,
    ) -> PrepareCustomConfig:
        """Replace modules of ``float_class`` by ``observed_class.from_float(module)``.

        Raises:
            ConfigError: another kind of quantization than static.
        """
        if quant_type != QuantType.STATIC:
            raise ConfigError(
                f"set_float_to_observed_mapping is for static quantization only, got {quant_type!r}; "
                "use QuantType.STATIC"
            )
        self.float_to_observed_mapping.setdefault(quant_type, {})[float_class] = observed_class
        return self

    def set_non_traceable_module_names(self, module_names: list[str]) -> PrepareCustomConfig:
        """Keep the modules with these paths as single nodes."""
        self.non_traceable_module_names = check_list(type(self).__name__, "non_traceable_module_name", module_names)
        return self

    def set_non_traceable_module_classes(self, module_classes: list[type[nn.Module]]) -> PrepareCustomConfig:
        """Keep modules of these classes as single nodes."""
        self.non_traceable_module_classes = check_list(
            type(self).__name__, "non_traceable_module_class", module_classes
        )
        return self

    def set_input_quantized_indexes(self, indexes: list[int]) -> PrepareCustomConfig:
        """Say which inputs of the model, counted from 0, come quantized already; by default none."""
        self.input_quantized_indexes = check_list(type(self).__name__, "input_quantized_idxs", indexes)
        return self

    def set_output_quantized_indexes(self, indexes: list[int]) -> PrepareCustomConfig:
        """Say which outputs of the model, counted from 0, stay quantized; by default none."""
        self.output_quantized_indexes = check_list(type(self).__name__, "output_quantized_idxs", indexes)
        return self

    def set_preserved_attributes(self, attributes: list[str]) -> PrepareCustomConfig:
        """Keep these attributes of the model on what is returned, even if its ``forward`` does not use them."""
        self.preserved_attributes = check_list(type(self).__name__, _PRESERVED, attributes)
        return self

    @classmethod
    def from_dict(cls, prepare_custom_config_dict: dict[str, Any]) -> PrepareCustomConfig:
        """Return what ``to_dict`` wrote; keys may be left out, and parts may be objects instead of dictionaries.

        Raises:
            ConfigError: an entry of the wrong length or kind.
        """
        given = prepare_custom_config_dict
        check_keys(cls.__name__, given, (_STANDALONE_NAME, _STANDALONE_CLASS, _OBSERVED, *cls._LISTS.values()))
        config = cls()
        for entry in given.get(_STANDALONE_NAME, ()):
            config.set_standalone_module_name(*_read_standalone(_STANDALONE_NAME, entry))
        for entry in given.get(_STANDALONE_CLASS, ()):
            config.set_standalone_module_class(*_read_standalone(_STANDALONE_CLASS, entry))
        for quant_type, classes in _read_classes(_OBSERVED, given.get(_OBSERVED, {})):
            for float_class, observed_class in classes.items():
                config.set_float_to_observed_mapping(float_class, observed_class, quant_type)
        for attribute, key in cls._LISTS.items():
            setattr(config, attribute, check_list(cls.__name__, key, given.get(key, [])))
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of what was set; backend configurations stay objects."""
        said: dict[str, Any] = {
            _STANDALONE_NAME: [_write_standalone(*item) for item in self.standalone_module_names.items()],
            _STANDALONE_CLASS: [_write_standalone(*item) for item in self.standalone_module_classes.items()],
            _OBSERVED: _write_classes(self.float_to_observed_mapping),
        }
        said |= {key: getattr(self, attribute) for attribute, key in self._LISTS.items()}
        return {key: value for key, value in said.items() if value}


class ConvertCustomConfig(PrintedFields):
    """What ``convert_fx`` treats differently. Setters return the configuration, so they chain."""

    def __init__(self) -> None:
        self.observed_to_quantized_mapping: dict[QuantType, ClassMapping] = {}
        self.preserved_attributes: list[str] = []

    def set_observed_to_quantized_mapping(
        self,
        observed_class: type[nn.Module],
        quantized_class: type[nn.Module],
        quant_type: QuantType = QuantType.STATIC,
    ) -> ConvertCustomConfig:
        """Replace modules of ``observed_class`` by ``quantized_class.from_observed(module)``."""
        self.observed_to_quantized_mapping.setdefault(quant_type, {})[observed_class] = quantized_class
        return self

    def set_preserved_attributes(self, attributes: list[str]) -> ConvertCustomConfig:
        """Keep these attributes of the model on what is returned, even if its ``forward`` does not use them."""
        self.preserved_attributes = check_list(type(self).__name__, _PRESERVED, attributes)
        return self

    @classmethod
    def from_dict(cls, convert_custom_config_dict: dict[str, Any]) -> ConvertCustomConfig:
        """Return what ``to_dict`` wrote; keys may be left out.

        Raises:
            ConfigError: an unknown kind of quantization, or something else than dictionaries of classes.
        """
        given = convert_custom_config_dict
        check_keys(cls.__name__, given, (_QUANTIZED, _PRESERVED))
        config = cls()
        for quant_type, classes in _read_classes(_QUANTIZED, given.get(_QUANTIZED, {})):
            for observed_class, quantized_class in classes.items():
                config.set_observed_to_quantized_mapping(observed_class, quantized_class, quant_type)
        return config.set_preserved_attributes(given.get(_PRESERVED, []))

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of what was set."""
        said = {
            _QUANTIZED: _write_classes(self.observed_to_quantized_mapping),
            _PRESERVED: self.preserved_attributes,
        }
        return {key: value for key, value in said.items() if value}


class FuseCustomConfig(PrintedFields):
    """What ``fuse_fx`` treats differently. Setters return the configuration, so they chain."""

    def __init__(self) -> None:
        self.preserved_attributes: list[str] = []

    def set_preserved_attributes(self, attributes: list[str]) -> FuseCustomConfig:
        """Keep these attributes of the model on what is returned, even if its ``forward`` does not use them."""
        self.preserved_attributes = check_list(type(self).__name__, _PRESERVED, attributes)
        return self

    @classmethod
    def from_dict(cls, fuse_custom_config_dict: dict[str, Any]) -> FuseCustomConfig:
        """Return what ``to_dict`` wrote; keys may be left out."""
        check_keys(cls.__name__, fuse_custom_config_dict, (_PRESERVED,))
        return cls().set_preserved_attributes(fuse_custom_config_dict.get(_PRESERVED, []))

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of what was set."""
        return {_PRESERVED: self.preserved_attributes} if self.preserved_attributes else {}


def _read_standalone(key: str, entry: Any) -> tuple[Any, ...]:
    if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 5:
        raise ConfigError(
            f"an entry under {key!r} is (module, qconfig mapping, example inputs, custom config, backend config), "
            f"got {entry!r}"
        )
    module, mapping, example_inputs, custom, backend = entry
    return (
        module,
        _read_part(key, mapping, QConfigMapping),
        example_inputs,
        _read_part(key, custom, PrepareCustomConfig),
        _read_part(key, backend, BackendConfig),
    )


def _read_part(key: str, given: Any, kind: Any) -> Any:
    if given is None or isinstance(given, kind):
        return given
    if isinstance(given, dict):
        return kind.from_dict(given)
    raise ConfigError(f"expected a {kind.__name__} or its dictionary in an entry under {key!r}, got {given!r}")


def _write_standalone(module: Any, entry: StandaloneModuleConfigEntry) -> tuple[Any, ...]:
    return (
        module,
        entry.qconfig_mapping.to_dict() if entry.qconfig_mapping is not None else None,
        entry.example_inputs,
        entry.prepare_custom_config.to_dict() if entry.prepare_custom_config is not None else None,
        entry.backend_config,
    )


def _read_classes(key: str, given: Any) -> list[tuple[QuantType, ClassMapping]]:
    if not isinstance(given, dict) or not all(isinstance(classes, dict) for classes in given.values()):
        raise ConfigError(f"{key!r} takes {{'static': {{class: class}}}}, got {given!r}")
    return [(QuantType.from_key(name), classes) for name, classes in given.items()]


def _write_classes(mapping: dict[QuantType, ClassMapping]) -> dict[str, ClassMapping]:
    return {quant_type.key: classes for quant_type, classes in mapping.items()}
