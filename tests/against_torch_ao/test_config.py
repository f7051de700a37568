"""Configurations say the same as the original's: dictionaries, prints, defaults, patterns, and which entry wins."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from qfx import config as ours
from qfx.config import backend_config as our_backends
from qfx.observers import MinMaxObserver, ObserverFactory, default_weight_observer

pytest.importorskip("torch.ao.quantization")
pytest.importorskip("torch.ao.quantization.quantize_fx")

import torch.ao.quantization.backend_config.utils  # (the original needs it and does not import it)
from torch.ao.quantization import backend_config as their_backends
from torch.ao.quantization import observer as their_observers
from torch.ao.quantization import qconfig as their_qconfigs
from torch.ao.quantization import qconfig_mapping as their_mappings
from torch.ao.quantization.backend_config import backend_config as their_classes
from torch.ao.quantization.backend_config import native as their_native
from torch.ao.quantization.backend_config.x86 import get_x86_backend_config
from torch.ao.quantization.fx import custom_config as their_custom
from torch.ao.quantization.quantize_fx import prepare_fx

BACKENDS = ["x86", "fbgemm", "qnnpack", "onednn"]


def plain(value: Any) -> Any:
    """Write a configuration so that ours and the original's compare: classes by their last names, factories opened."""
    if isinstance(value, (ours.QConfig, their_qconfigs.QConfig)):
        return ("QConfig", plain(value.activation), plain(value.weight))
    if isinstance(value, ObserverFactory) or hasattr(value, "callable_args"):
        return (value.p.func.__name__, plain(opened(value.p)[1]))
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (ours.DTypeWithConstraints, their_classes.DTypeWithConstraints)):
        return plain(vars(value))
    if isinstance(value, dict):
        return {plain(key): plain(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(held) for held in value)
    if isinstance(value, type):
        family = ".qat." if ".qat." in value.__module__ else ""
        kind = ".reference." if ".reference." in value.__module__ else ""
        return f"{family}{kind}{value.__name__}"
    return value


def opened(partial: functools.partial[Any]) -> tuple[type, dict[str, Any]]:
    """The class and all arguments of a factory; the original nests factories in factories."""
    if isinstance(partial.func, type):
        return partial.func, partial.keywords
    made, keywords = opened(partial.func.p)
    return made, keywords | partial.keywords


@pytest.mark.parametrize("backend", BACKENDS)
def test_default_mappings(backend: str) -> None:
    said = plain(ours.get_default_qconfig_mapping(backend).to_dict())
    theirs = plain(their_mappings.get_default_qconfig_mapping(backend).to_dict())
    assert said == theirs
    assert plain(ours.get_default_qconfig_dict(backend)) == theirs


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_default_mappings_for_training(backend: str, version: int) -> None:
    said = plain(ours.get_default_qat_qconfig_mapping(backend, version).to_dict())
    theirs = plain(their_mappings.get_default_qat_qconfig_mapping(backend, version).to_dict())
    assert said == theirs
    assert plain(ours.get_default_qat_qconfig_dict(backend, version)) == theirs
    assert plain(ours.get_default_qat_qconfig(backend, version)) == plain(
        their_qconfigs.get_default_qat_qconfig(backend, version)
    )


@pytest.mark.parametrize(
    "name", [name for name in ours.__all__ if "_qconfig" in name and not name.startswith(("get_", "reuses"))]
)
def test_default_qconfigs(name: str) -> None:
    assert plain(getattr(ours, name)) == plain(getattr(their_qconfigs, name))


THEIR_BACKENDS: dict[str, Callable[[], Any]] = {
    "x86": get_x86_backend_config,
    "native": their_backends.get_native_backend_config,
    "fbgemm": their_backends.get_fbgemm_backend_config,
    "qnnpack": their_backends.get_qnnpack_backend_config,
    "onednn": their_backends.get_onednn_backend_config,
    "executorch": their_backends.get_executorch_backend_config,
    "tensorrt": their_backends.get_tensorrt_backend_config,
    "test_only_legacy_native": their_native.get_test_only_legacy_native_backend_config,
}
FUNCTIONS = ("fuser_method", "root_node_getter", "extra_inputs_getter")


def our_backend(name: str) -> Any:
    return getattr(our_backends, f"get_{name}_backend_config")()


def patterns(backend: Any) -> dict[Any, dict[str, Any]]:
    found = {}
    for key, made in backend._pattern_complex_format_to_config.items():
        said = {name: held for name, held in made.to_dict().items() if name not in FUNCTIONS}
        found[plain(key)] = plain(said)
    return found


@pytest.mark.parametrize("name", THEIR_BACKENDS)
def test_backends(name: str) -> None:
    """Patterns, their order, and everything said of them; what they do with modules is compared below."""
    mine, other = our_backend(name), THEIR_BACKENDS[name]()
    assert mine.name == other.name
    said, theirs = patterns(mine), patterns(other)
    assert list(said) == list(theirs)
    for pattern, entry in said.items():
        assert entry == theirs[pattern], pattern
    for ours_made, their_made in zip(mine.configs, other.configs, strict=True):
        for field in FUNCTIONS:
            attribute = field if field == "fuser_method" else f"_{field}"
            assert (getattr(ours_made, attribute) is None) == (getattr(their_made, attribute) is None), plain(
                ours_made.nested_pattern
            )


def module_of(part: Any) -> Any:
    """A module, or what stands for one, for an element of a pattern in eval mode."""
    made = {
        nn.Linear: lambda: nn.Linear(4, 4),
        functional.relu: nn.ReLU,
        functional.leaky_relu: nn.LeakyReLU,
        torch.tanh: nn.Tanh,
    }
    if isinstance(part, type) and issubclass(part, nn.Module):
        kind = part.__name__.rstrip("123d")
        sizes = {"Conv": (4, 4, 1), "ConvTranspose": (4, 4, 1), "BatchNorm": (4,)}.get(kind, ())
        torch.manual_seed(0)
        return made.get(part, lambda: part(*sizes))().eval()
    return made[part]().eval() if part in made else part


def described(fused: Any) -> Any:
    """Classes and weights of a module, in order."""
    kinds = [type(each).__name__ for each in fused.modules()]
    return kinds, {name: value.tolist() for name, value in fused.state_dict().items()}


FUSIONS = [
    (name, number)
    for name in ("onednn", "executorch")
    for number, made in enumerate(our_backend(name).configs)
    if made.fuser_method is not None
]


@pytest.mark.parametrize("is_qat", [False, True])
@pytest.mark.parametrize(("name", "number"), FUSIONS)
def test_fuser_methods(name: str, number: int, is_qat: bool) -> None:
    mine, other = our_backend(name).configs[number], THEIR_BACKENDS[name]().configs[number]
    if mine.pattern is not None:
        modules: Any = tuple(module_of(part) for part in mine.pattern)
    else:
        modules = _modules(mine._pattern_complex_format)
        assert mine._root_node_getter(modules) is other._root_node_getter(modules)
        (mine_extra,), (other_extra,) = (each._extra_inputs_getter(modules) for each in (mine, other))
        assert mine_extra is other_extra
    if is_qat and _cannot_train(mine):
        for each in (mine, other):
            with pytest.raises(Exception, match=r"Cannot fuse train modules|not yet supported in QAT"):
                each.fuser_method(is_qat, *modules)
        return
    assert described(mine.fuser_method(is_qat, *modules)) == described(other.fuser_method(is_qat, *modules))


def _cannot_train(made: Any) -> bool:
    """Batch norm that is not folded beside a transposed convolution, an addition or a leaky relu has no container."""
    text = str(made.nested_pattern)
    return "BatchNorm" in text and any(kind in text for kind in ("Transpose", "MatchAllNode", "LeakyReLU"))


def _modules(pattern: Any) -> Any:
    return tuple(map(_modules, pattern)) if isinstance(pattern, tuple) else module_of(pattern)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (ours.QConfigMapping, their_mappings.QConfigMapping),
        (ours.PrepareCustomConfig, their_custom.PrepareCustomConfig),
        (ours.ConvertCustomConfig, their_custom.ConvertCustomConfig),
        (ours.FuseCustomConfig, their_custom.FuseCustomConfig),
        (ours.StandaloneModuleConfigEntry, their_custom.StandaloneModuleConfigEntry),
        (ours.BackendConfig, their_classes.BackendConfig),
        (ours.BackendPatternConfig, their_classes.BackendPatternConfig),
        (ours.DTypeConfig, their_classes.DTypeConfig),
        (ours.DTypeWithConstraints, their_classes.DTypeWithConstraints),
    ],
)
def test_parameters(mine: type, theirs: type) -> None:
    def parameters(function: Any) -> list[tuple[str, Any]]:
        return [(p.name, plain(p.default)) for p in inspect.signature(function).parameters.values()]

    assert parameters(mine) == parameters(theirs)
    methods = [name for name, held in vars(theirs).items() if inspect.isroutine(held) or isinstance(held, classmethod)]
    for name in methods:
        if not name.startswith("__"):
            assert parameters(getattr(mine, name)) == parameters(getattr(theirs, name)), name


def test_functions() -> None:
    for name in ("get_default_qconfig", "get_default_qconfig_dict", "qconfig_equals"):
        mine, theirs = inspect.signature(getattr(ours, name)), inspect.signature(getattr(their_qconfigs, name))
        assert [(p.name, p.default) for p in mine.parameters.values()] == [
            (p.name, p.default) for p in theirs.parameters.values()
        ]


def test_mappings_print_the_same() -> None:
    def filled(mapping: Any) -> Any:
        return mapping.set_object_type("reshape", None).set_module_name_object_type_order("a", nn.Linear, 0, None)

    assert repr(filled(ours.QConfigMapping())) == repr(filled(their_mappings.QConfigMapping()))
    assert repr(ours.QConfigMapping()) == repr(their_mappings.QConfigMapping())


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (ours.BackendPatternConfig(nn.Linear), their_classes.BackendPatternConfig(nn.Linear)),
        (
            ours.BackendConfig("n").set_backend_pattern_config(ours.BackendPatternConfig("view")),
            their_classes.BackendConfig("n").set_backend_pattern_config(their_classes.BackendPatternConfig("view")),
        ),
        (ours.PrepareCustomConfig(), their_custom.PrepareCustomConfig()),
        (
            ours.ConvertCustomConfig().set_preserved_attributes(["a"]),
            their_custom.ConvertCustomConfig().set_preserved_attributes(["a"]),
        ),
        (
            ours.DTypeConfig(torch.quint8, bias_dtype=torch.float),
            their_classes.DTypeConfig(torch.quint8, bias_dtype=torch.float),
        ),
        (ours.QConfig(None, None), their_qconfigs.QConfig(None, None)),
    ],
)
def test_prints(mine: object, theirs: object) -> None:
    assert repr(mine) == repr(theirs)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(functional.hardswish(functional.elu(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b = Block()
        self.c = Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.hardswish(self.c(self.b(x)))


# Name of the observed node -> how `resolve` is asked about it.
ASKED: dict[str, dict[str, Any]] = {
    "elu": {"object_types": [functional.elu], "module_path": "b", "index": 0, "scope_type": Block},
    "hardswish": {"object_types": [functional.hardswish], "module_path": "b", "index": 0, "scope_type": Block},
    "b_linear": {"object_types": [nn.Linear], "module_path": "b.linear", "index": 0},
    "elu_1": {"object_types": [functional.elu], "module_path": "c", "index": 0, "scope_type": Block},
    "hardswish_1": {"object_types": [functional.hardswish], "module_path": "c", "index": 0, "scope_type": Block},
    "c_linear": {"object_types": [nn.Linear], "module_path": "c.linear", "index": 0},
    "hardswish_2": {"object_types": [functional.hardswish], "module_path": "", "index": 0},
}
ENTRIES: dict[str, tuple[Any, ...]] = {
    "order of a function": ("set_module_name_object_type_order", "c", functional.hardswish, 0),
    "order of a module": ("set_module_name_object_type_order", "b", nn.Linear, 0),
    "order in the model": ("set_module_name_object_type_order", "", functional.hardswish, 0),
    "order of the module itself": ("set_module_name_object_type_order", "b.linear", nn.Linear, 0),
    "name": ("set_module_name", "c"),
    "inner name": ("set_module_name", "c.linear"),
    "empty name": ("set_module_name", ""),
    "regex": ("set_module_name_regex", "b"),
    "second regex": ("set_module_name_regex", "b.*"),
    "regex of the end": ("set_module_name_regex", "linear"),
    "regex of all": ("set_module_name_regex", ".*"),
    "class of the caller": ("set_object_type", Block),
    "class of the model": ("set_object_type", Net),
    "function": ("set_object_type", functional.elu),
    "module class": ("set_object_type", nn.Linear),
}
CHOICES = [
    [],
    *([name] for name in ENTRIES),
    ["class of the caller", "function"],
    ["function", "regex"],
    ["class of the caller", "regex"],
    ["regex", "second regex"],
    ["second regex", "regex of all"],
    ["name", "regex of all"],
    ["name", "inner name", "module class"],
    ["name", "order of a function", "regex of all"],
    list(ENTRIES),
]


@pytest.mark.filterwarnings("ignore")  # all of them are about the original being deprecated
@pytest.mark.parametrize("chosen", CHOICES, ids="+".join)
def test_the_same_entry_wins(chosen: list[str]) -> None:
    """Each entry has its own quant_max, and the observers of the original's prepared model tell who won."""
    theirs, mine = their_mappings.QConfigMapping(), ours.QConfigMapping()
    their_minmax, their_weight = their_observers.MinMaxObserver, their_observers.default_weight_observer
    for number, name in enumerate(["global", *chosen], start=100):
        setter, *key = ("set_global",) if name == "global" else ENTRIES[name]
        their_observer = their_minmax.with_args(quant_min=0, quant_max=number)
        getattr(theirs, setter)(*key, their_qconfigs.QConfig(their_observer, their_weight))
        observer = MinMaxObserver.with_args(quant_min=0, quant_max=number)
        getattr(mine, setter)(*key, ours.QConfig(observer, default_weight_observer))
    prepared = prepare_fx(Net().eval(), theirs, (torch.randn(1, 4),))
    modules = dict(prepared.named_modules())
    won = {
        node.args[0].name: modules[node.target].quant_max
        for node in prepared.graph.nodes
        if node.op == "call_module" and "activation_post_process" in node.target and node.args[0].op != "placeholder"
    }
    answers = {name: ours.resolve(mine, **asked) for name, asked in ASKED.items()}
    assert {name: ours.observer_facts(found.qconfig.activation).quant_max for name, found in answers.items()} == won
