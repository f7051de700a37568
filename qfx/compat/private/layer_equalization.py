"""Cross-layer equalization of modules one names in pairs (``torch.ao.quantization._equalize``).

`qfx.passes.equalize` finds the pairs in a graph and balances magnitudes; here, as in the original, it is the width of a
channel's range, ``max - min``. Nagel et al. 2019, arXiv:1906.04721, section 4.1.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import ConfigError
from qfx.nn import intrinsic
from qfx.passes.equalizable import along

_supported_types = {nn.Conv1d, nn.Conv2d, nn.Linear}
_supported_intrinsic_types = {intrinsic.ConvReLU1d, intrinsic.ConvReLU2d, intrinsic.LinearReLU}
_all_supported_types = _supported_types | _supported_intrinsic_types


class WrongPairError(ConfigError, TypeError):
    """Two things that are no neighbouring layers; the original raises ``TypeError``."""


# -- weights and biases --------------------------------------------------------------------------------------------
def _layer(module: Any) -> Any:
    return module[0] if type(module) in _supported_intrinsic_types else module


def set_module_weight(module: nn.Module, weight: Tensor) -> None:
    """Give a layer, or the one in a fused container, a weight."""
    _layer(module).weight = nn.Parameter(weight)


def set_module_bias(module: nn.Module, bias: Tensor | None) -> None:
    """Give a layer, or the one in a fused container, a bias."""
    _layer(module).bias = None if bias is None else nn.Parameter(bias)


def has_bias(module: nn.Module) -> bool:
    """Whether a layer, or the one in a fused container, has a bias."""
    return get_module_bias(module) is not None


def get_module_weight(module: nn.Module) -> Tensor:
    """The weight of a layer, or of the one in a fused container."""
    found: Tensor = _layer(module).weight
    return found


def get_module_bias(module: nn.Module) -> Tensor | None:
    """The bias of a layer, or of the one in a fused container."""
    found: Tensor | None = _layer(module).bias
    return found


# -- ranges --------------------------------------------------------------------------------------------------------
def max_over_ndim(input: Tensor, axis_list: Sequence[int], keepdim: bool = False) -> Tensor:
    """The largest value over some dimensions."""
    return input.amax(list(axis_list), keepdim)


def min_over_ndim(input: Tensor, axis_list: Sequence[int], keepdim: bool = False) -> Tensor:
    """The smallest value over some dimensions."""
    return input.amin(list(axis_list), keepdim)


def channel_range(input: Tensor, axis: int = 0) -> Tensor:
    """How far the values of each channel spread.

    Returns:
        Shape ``(channels,)``.
    """
    others = [each for each in range(input.dim()) if each != axis % input.dim()]
    return max_over_ndim(input, others) - min_over_ndim(input, others)


def cross_layer_equalization(module1: nn.Module, module2: nn.Module, output_axis: int = 0, input_axis: int = 1) -> None:
    """Scale the channels between two layers so that their ranges are alike on both sides; in place.

    Args:
        module1: computes the channels, along `output_axis` of its weight.
        module2: reads them, along `input_axis` of its weight.

    Raises:
        ConfigError: a layer of another class.
        WrongPairError: numbers of channels that differ.
    """
    for module in (module1, module2):
        if type(module) not in _all_supported_types:
            raise ConfigError(
                f"module type not supported: {type(module).__name__}; equalization takes "
                f"{', '.join(sorted(kind.__name__ for kind in _all_supported_types))}"
            )
    before, after = get_module_weight(module1).detach(), get_module_weight(module2).detach()
    if before.shape[output_axis] != after.shape[input_axis]:
        raise WrongPairError(
            "Number of output channels of first arg do not match the number of input channels of second arg: "
            f"{before.shape[output_axis]} and {after.shape[input_axis]}"
        )
    factors = (channel_range(after, input_axis) / channel_range(before, output_axis)).sqrt()
    factors = torch.where(torch.isfinite(factors) & (factors > 0), factors, 1.0)  # a channel of one value stays
    bias = get_module_bias(module1)
    set_module_weight(module1, before * along(factors, before, output_axis))
    set_module_weight(module2, after / along(factors, after, input_axis))
    if bias is not None:
        set_module_bias(module1, bias.detach() * factors)


# -- models --------------------------------------------------------------------------------------------------------
def get_name_by_module(model: nn.Module, module: nn.Module) -> str:
    """The path of a module in a model.

    Raises:
        ConfigError: the model has no such module.
    """
    for name, each in model.named_modules():
        if each is module:
            return str(name)
    raise ConfigError(f"module is not in the model: {type(module).__name__}")


def process_paired_modules_list_to_name(model: nn.Module, paired_modules_list: Any) -> Any:
    """The same lists with paths in place of modules; changed in place.

    Raises:
        WrongPairError: something that is neither.
    """
    for group in paired_modules_list:
        for each in group:
            if not isinstance(each, str | nn.Module):
                raise WrongPairError(f"item must be a nn.Module or a string; got {each!r}")
        group[:] = [each if isinstance(each, str) else get_name_by_module(model, each) for each in group]
    return paired_modules_list


def expand_groups_in_paired_modules_list(paired_modules_list: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Neighbours of each group, as pairs.

    Raises:
        ConfigError: a group of one.
    """
    found: list[Sequence[Any]] = []
    for group in paired_modules_list:
        if len(group) < 2:
            raise ConfigError(f"Group must have at least two modules; got {list(group)}")
        found += [group] if len(group) == 2 else [list(pair) for pair in itertools.pairwise(group)]
    return found


def equalize(model: nn.Module, paired_modules_list: Any, threshold: float = 1e-4, inplace: bool = True) -> nn.Module:
    """Equalize neighbouring layers until no sweep changes their weights any more.

    Args:
        model: has the layers.
        paired_modules_list: groups of two or more layers that follow each other, as paths or modules.
        threshold: how much all weights may have changed together, as a norm, when it ends.
        inplace: change `model`; False for a copy.

    Returns:
        The equalized model.
    """
    paths = process_paired_modules_list_to_name(model, [list(group) for group in paired_modules_list])
    if not inplace:
        model = copy.deepcopy(model)
    pairs = expand_groups_in_paired_modules_list(paths)
    modules = {name: model.get_submodule(name) for pair in pairs for name in pair}
    before: Mapping[str, Any] = dict.fromkeys(modules)
    while not converged(modules, before, threshold):
        before = {name: copy.deepcopy(module) for name, module in modules.items()}
        for first, second in pairs:
            cross_layer_equalization(modules[first], modules[second])
    return model


def converged(
    curr_modules: Mapping[str, nn.Module], prev_modules: Mapping[str, nn.Module | None], threshold: float = 1e-4
) -> bool:
    """Whether the weights of layers are those of earlier ones, up to the sum of the norms of the differences.

    Raises:
        ConfigError: the two have different names.
    """
    if curr_modules.keys() != prev_modules.keys():
        raise ConfigError(
            "The keys to the given mappings must have the same set of names of modules; "
            f"these are in one of them: {sorted(curr_modules.keys() ^ prev_modules.keys())}"
        )
    changed = 0.0
    for name, module in curr_modules.items():
        earlier = prev_modules[name]
        if earlier is None:
            return False
        changed += float(torch.linalg.norm(get_module_weight(module).detach() - get_module_weight(earlier).detach()))
    return changed < threshold
