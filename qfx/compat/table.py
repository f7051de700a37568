"""Where the names of each old module are found in qfx. The one place that knows torch's module paths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

QUANTIZATION = "torch.ao.quantization"

_OBSERVERS = ("qfx", "qfx.observers", "qfx.fake_quantize.private_names")
_MAPPINGS = ("qfx", "qfx.eager", "qfx.eager.private_names")
_BACKENDS = ("qfx.config.backend_config", "qfx", "qfx.eager.private_names")
_FX = ("qfx", "qfx.eager.private_names", "qfx.utilities.private_names", "qfx.fake_quantize.private_names")
_ENGINES = (*_BACKENDS, "qfx.compat.private.dtype_configs", "qfx.compat.private.op_configs")
# ``fx.prepare``, ``fx.convert`` and ``fx.fuse`` had the names of all their helpers.
_STEPS = tuple(
    f"qfx.compat.private.{name}"
    for name in (
        "flows",
        "matches",
        "backends",
        "patterns",
        "qconfigs",
        "handlers",
        "nodes",
        "arguments",
        "graph_modules",
        "equalization",
        "lowering",
    )
)

# Of ``torch.ao.quantization`` itself (the first) and its modules: the modules of qfx that have their names.
_OF_QUANTIZATION: dict[str, tuple[str, ...]] = {
    "": ("qfx",),
    "_equalize": ("qfx.compat.private.layer_equalization",),
    "_learnable_fake_quantize": ("qfx.compat.private.learnable",),
    "backend_config": _BACKENDS,
    **{
        f"backend_config.{engine}": _ENGINES
        for engine in ("executorch", "fbgemm", "native", "onednn", "qnnpack", "tensorrt", "x86")
    },
    "backend_config._common_operator_config_utils": ("qfx.compat.private.op_configs", *_BACKENDS),
    "backend_config.backend_config": (*_BACKENDS, "qfx.compat.private.keys"),
    "backend_config.utils": ("qfx.compat.private.backends", "qfx.compat.private.fusers", *_BACKENDS),
    "fake_quantize": _OBSERVERS,
    "fuse_modules": _MAPPINGS,
    "fuser_method_mappings": (*_MAPPINGS, "qfx.compat.private.fusers"),
    "fx": ("qfx.compat.private.flows",),
    "fx._equalize": (
        "qfx.compat.private.equalization",
        "qfx.compat.private.equalization_steps",
        "qfx.compat.private.layer_noise",
        "qfx",
        *_STEPS,
    ),
    "fx.convert": (*_STEPS, *_FX),
    "fx.custom_config": ("qfx", "qfx.compat.private.keys", "qfx.compat.private.quant_types"),
    "fx.fuse": (*_STEPS, *_FX),
    "fx.fuse_handler": ("qfx.compat.private.handlers", *_FX),
    "fx.graph_module": ("qfx", "qfx.compat.private.graph_modules"),
    "fx.lstm_utils": ("qfx.compat.private.lstms", *_OBSERVERS),
    "fx.match_utils": ("qfx", "qfx.compat.private.matches", "qfx.compat.private.graph_modules"),
    "fx.pattern_utils": ("qfx", "qfx.compat.private.patterns", "qfx.compat.private.handlers"),
    "fx.prepare": (*_STEPS, "qfx.config.private_names", *_FX),
    "fx.qconfig_mapping_utils": ("qfx.compat.private.qconfigs", "qfx.config.private_names", *_FX),
    "fx.quantize_handler": ("qfx.compat.private.handlers", "qfx.compat.private.nodes", "qfx"),
    "fx.tracer": ("qfx.tracer", "qfx"),
    "fx.utils": (
        "qfx.compat.private.nodes",
        "qfx.compat.private.arguments",
        "qfx.compat.private.dequant_stubs",
        "qfx.compat.private.lowering",
        *_FX,
    ),
    "observer": (*_OBSERVERS, "qfx.compat.private.observers"),
    "qconfig": (*_OBSERVERS, "qfx.config", "qfx.config.private_names"),
    "qconfig_mapping": (*_OBSERVERS, "qfx.config", "qfx.config.private_names"),
    "quant_type": ("qfx", "qfx.compat.private.quant_types"),
    "quantization_mappings": _MAPPINGS,
    "quantize": (*_MAPPINGS, "qfx.config.private_names", "qfx.fake_quantize.private_names", "qfx.compat.private.eager"),
    "quantize_fx": (
        "qfx",
        "qfx.compat.private.flows",
        "qfx.tracer",
        "qfx.compat.private.nodes",
        "qfx.compat.private.arguments",
    ),
    "quantize_jit": ("qfx", "qfx.compat.private.scripts"),
    "stubs": ("qfx",),
    "utils": ("qfx", "qfx.utilities", "qfx.utilities.private_names"),
}

# Families of layers: package -> its modules. Every one has the names of the package of the same name in ``qfx.nn``.
_OF_NN = {
    "intrinsic": "modules modules.fused",
    "intrinsic.qat": "modules modules.conv_fused modules.linear_fused modules.linear_relu",
    "intrinsic.quantized": "modules modules.bn_relu modules.conv_add modules.conv_relu modules.linear_relu",
    "intrinsic.quantized.dynamic": "modules modules.linear_relu",
    "qat": "modules modules.conv modules.embedding_ops modules.linear",
    "qat.dynamic": "modules modules.linear",
    "quantizable": "modules modules.activation modules.rnn",
    "quantized": "modules modules.activation modules.batchnorm modules.conv modules.dropout modules.embedding_ops "
    "modules.functional_modules modules.linear modules.normalization modules.rnn modules.utils",
    "quantized.functional": "",
    "quantized.dynamic": "modules modules.conv modules.linear modules.rnn",
    "quantized.reference": "modules modules.conv modules.linear modules.rnn modules.sparse modules.utils",
    "sparse": "",
    "sparse.quantized": "linear utils",
    "sparse.quantized.dynamic": "linear",
}
_BESIDE = {
    "quantized": ("qfx.nn.quantized.conv", "qfx.nn.quantized.batchnorm", "qfx.compat.private.layers"),
    "quantized.dynamic": ("qfx.compat.private.layers",),
    "quantized.reference": ("qfx.compat.private.reference_weights", "qfx.nn.quantized.reference.conv"),
    "sparse.quantized": ("qfx.compat.private.layers",),
    "intrinsic.qat": ("qfx.nn.intrinsic", "qfx.compat.private.layers"),
    "intrinsic.quantized": ("qfx.nn.intrinsic",),
    "qat": ("qfx.compat.private.layers", "qfx.nn.intrinsic"),
}

# Names before ``torch.ao``: the families that lived in ``torch.nn``, and modules that have another name now.
_ONCE_IN_NN = ("intrinsic", "qat", "quantizable", "quantized")
_RENAMED = {"quantized.reference": "quantized._reference"}
_OLD_QUANTIZATION = {
    "fx.fusion_patterns": "fx.fuse_handler",
    "fx.quantization_patterns": "fx.quantize_handler",
    "fx.quantization_types": "utils",
}

# Modules qfx has no form of its own of: PyTorch's file is used while it ships it, and works with qfx's classes.
KEPT = (
    f"{QUANTIZATION}._correct_bias",
    f"{QUANTIZATION}.fx._decomposed",
    f"{QUANTIZATION}.fx._lower_to_native_backend",
    f"{QUANTIZATION}.fx._model_report",
    f"{QUANTIZATION}.fx.lower_to_fbgemm",
    f"{QUANTIZATION}.fx.lower_to_qnnpack",
    "torch.quantization._numeric_suite",
    "torch.quantization._numeric_suite_fx",
    "torch.quantization._quantized_conversions",
)

# Of these, what is loaded already stays: they register operators, which can be done only once a process.
REGISTERS = (f"{QUANTIZATION}.fx._decomposed",)

# What stands for such a module where this PyTorch has none any more.
INSTEAD = {f"{QUANTIZATION}.fx._decomposed": ("qfx.compat.private.decomposed",)}

# What comes with quantization of exported programs.
LATER = (f"{QUANTIZATION}.pt2e", f"{QUANTIZATION}.quantizer", f"{QUANTIZATION}.quantize_pt2e")

# Everything under these is ours while installed.
ROOTS = (QUANTIZATION, "torch.ao.nn", "torch.quantization", *(f"torch.nn.{name}" for name in _ONCE_IN_NN))

# PyTorch's own packages that import from these: loaded while installed, they are bound to qfx.
BESIDE = ("torch.ao.ns", "torch.ao.pruning")


def below(name: str, roots: tuple[str, ...]) -> bool:
    """Whether a module is one of `roots` or inside one."""
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def file_of(name: str) -> Path | None:
    """The file PyTorch ships for a module below ``torch``; None where it ships none."""
    at = Path(str(torch.__file__)).parent.joinpath(*name.split(".")[1:])
    candidates = (at.with_suffix(".py"), at / "__init__.py")
    return next((each for each in candidates if each.is_file()), None)


def sources() -> dict[str, tuple[str, ...]]:
    """Old module -> modules of qfx with its names, first the one that is asked first; parents before children."""
    return dict(sorted(_rows()))


def _rows() -> Iterator[tuple[str, tuple[str, ...]]]:
    for tail, found in _OF_QUANTIZATION.items():
        yield f"{QUANTIZATION}.{tail}".rstrip("."), found
        yield f"torch.quantization.{tail}".rstrip("."), found
    for old, new in _OLD_QUANTIZATION.items():
        yield f"torch.quantization.{old}", _OF_QUANTIZATION[new]
    for name, instead in INSTEAD.items():
        if file_of(name) is None:
            yield name, instead
    yield "torch.ao.nn", ("qfx.nn",)
    for package, modules in _OF_NN.items():
        found = (f"qfx.nn.{package}", *_BESIDE.get(package, ()))
        for module in ("", *modules.split()):
            yield f"torch.ao.nn.{package}.{module}".rstrip("."), found
            if package.startswith(_ONCE_IN_NN):
                yield f"torch.nn.{_RENAMED.get(package, package)}.{module}".rstrip("."), found
