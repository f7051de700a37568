"""Training with a batch norm that will be folded.

The weight that is rounded is the folded one, scaled by the batch norm's running statistics, which are steady; the
result is divided by the same scale again and normalized with the batch's statistics, which training needs. When the
statistics are frozen the two cancel, and training sees exactly what the integers will compute (Krishnamoorthi 2018,
arXiv:1806.08342, section 3.2.2).

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._jit_internal import is_scripting

from qfx.fake_quantize.fused import FusedMovingAvgObsFakeQuantize
from qfx.fake_quantize.products import divided, multiplied
from qfx.fake_quantize.rounding import quick
from qfx.nn.errors import ModuleTypeError
from qfx.nn.folding import fold_modules
from qfx.nn.qat.module import QATModule, check_qconfig, like


class WithBatchNorm(QATModule):
    """Mixin before a float class: also owns the batch norm ``bn`` and whether its statistics are frozen.

    A subclass names the fused float class in ``_FLOAT_MODULE``, the class with the weight in ``_FLOAT_WEIGHTED``, the
    batch norm's in ``_FLOAT_BN``, what the folded form is in ``_FLOAT_FOLDED`` (None for the weighted class alone), and
    computes in ``_product``.

    Attributes:
        bn: the batch norm.
        freeze_bn: whether ``bn`` uses its running statistics, and keeps them, also in training.
        _enable_slow_path_for_better_numerical_stability: learn the statistics of the batch from a product of their own
            instead of dividing by a scale of the batch norm, which may be next to zero.
    """

    # Version 1 had the batch norm's tensors at this level, under these names.
    _version = 2
    _OLD_NAMES = (
        ("bn.weight", "gamma"),
        ("bn.bias", "beta"),
        ("bn.running_mean", "running_mean"),
        ("bn.running_var", "running_var"),
        ("bn.num_batches_tracked", "num_batches_tracked"),
    )

    _FLOAT_WEIGHTED: Any = None
    _FLOAT_BN: Any = None
    _FLOAT_FOLDED: Any = None

    if TYPE_CHECKING:  # TorchScript would take the annotations for attributes' types
        bn: Any
        bias: Any

    def _own_batch_norm(self, channels: int, eps: float, momentum: float, freeze_bn: bool, qconfig: Any) -> None:
        self.bn = self._FLOAT_BN(channels, eps, momentum)
        self._enable_slow_path_for_better_numerical_stability = False
        self._take_qconfig(qconfig)
        self._set_frozen(freeze_bn if self.training else True)

    def _set_frozen(self, frozen: bool) -> None:
        self.freeze_bn = frozen
        self.bn.training = not frozen

    def freeze_bn_stats(self) -> "WithBatchNorm":
        """Normalize by the running statistics from now on, and leave them as they are."""
        self._set_frozen(True)
        return self

    def update_bn_stats(self) -> "WithBatchNorm":
        """Normalize by each batch's statistics from now on, and follow them."""
        self._set_frozen(False)
        return self

    def reset_running_stats(self) -> None:
        """Forget the running statistics."""
        self.bn.reset_running_stats()

    def reset_bn_parameters(self) -> None:
        """Draw scales of the batch norm from 0 to 1 and a bias as a new layer does; forget the running statistics."""
        self.bn.reset_running_stats()
        nn.init.uniform_(self.bn.weight)
        nn.init.zeros_(self.bn.bias)
        if self.bias is not None:
            bound = self.weight[0].numel() ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        if local_metadata.get("version") in (None, 1):
            for name, old in self._OLD_NAMES:
                if prefix + old in state_dict:
                    state_dict[prefix + name] = state_dict.pop(prefix + old)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def train(self, mode: bool = True) -> "WithBatchNorm":
        """Set the mode; a frozen batch norm stays frozen."""
        self.training = mode
        if not self.freeze_bn:
            for module in self.children():
                module.train(mode)
        return self

    def _product(self, input: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def _by_channel(self, of_channels: Tensor) -> Tensor:
        """Numbers of the channels in the shape that a result is multiplied with."""
        return of_channels.reshape([1, -1] + [1] * (self.weight.dim() - 2))

    def _normalized(self, input: Tensor) -> Tensor:
        if not is_scripting() and self._enable_slow_path_for_better_numerical_stability:
            return self._normalized_slowly(input)
        factor = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        of_rows = factor.reshape([-1] + [1] * (self.weight.dim() - 1))
        of_channels = self._by_channel(factor)
        if is_scripting():
            result = self._product(input, self.weight_fake_quant(self.weight * of_rows)) / of_channels
        else:
            result = self._divided(input, of_rows, of_channels)
        if self.bias is not None:
            result = result + self._by_channel(self.bias)
        return self.bn(result)  # type: ignore[no-any-return]

    @torch.jit.unused
    def _normalized_slowly(self, input: Tensor) -> Tensor:
        bn, bias, steady = self.bn, self.bias, None
        if bn.training:
            result = self._product(input, self.weight)
            var, mean = torch.var_mean(result, [axis for axis in range(result.dim()) if axis != 1], correction=0)
            with torch.no_grad():
                bn(result if bias is None else result + self._by_channel(bias))  # follows the batch
            steady = torch.sqrt(bn.running_var + bn.eps)
        else:
            var, mean = bn.running_var, bn.running_mean if bias is None else bn.running_mean - bias
        deviation = torch.sqrt(var + bn.eps)
        factor = bn.weight / (deviation if steady is None else steady)
        weight = self.weight_fake_quant(self.weight * factor.reshape([-1] + [1] * (self.weight.dim() - 1)))
        result = self._product(input, weight)
        if steady is not None:
            result = result * self._by_channel(steady / deviation)
        return result + self._by_channel(bn.bias - mean * bn.weight / deviation)

    @torch.jit.unused
    def _divided(self, input: Tensor, of_rows: Tensor, of_channels: Tensor) -> Tensor:
        if not quick(input) or 1 in self.bn.weight.shape:
            return self._product(input, self.weight_fake_quant(self.weight * of_rows)) / of_channels
        rounding: Any = self.weight_fake_quant
        if isinstance(rounding, FusedMovingAvgObsFakeQuantize):
            return divided(self._product(input, rounding.of_product(self.weight, of_rows)), of_channels)
        return divided(self._product(input, rounding(multiplied(self.weight, of_rows))), of_channels)

    def forward(self, input: Tensor) -> Tensor:
        """Compute with the rounded folded weight, then normalize."""
        return self._normalized(input)

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Any:
        """Make it from a fused float container with a ``qconfig``; parameters and batch norm are the container's own.

        Args:
            mod: a container of the class this one replaces.
            use_precomputed_fake_quant: accepted for the original's sake.

        Raises:
            ModuleTypeError: another class, or no ``qconfig``.
        """
        if type(mod) is not cls._FLOAT_MODULE:
            raise ModuleTypeError(
                f"qat.{cls.__name__}.from_float only works for {cls._FLOAT_MODULE.__name__}, got {type(mod).__name__}"
            )
        weighted, bn = mod[0], mod[1]
        qconfig = getattr(mod, "qconfig", None) or getattr(weighted, "qconfig", None)
        check_qconfig(cls, mod, qconfig)
        made = like(cls, weighted)
        made._parameters.update({"weight": weighted.weight, "bias": weighted.bias})
        made.bn = bn
        made._enable_slow_path_for_better_numerical_stability = False
        made._take_qconfig(qconfig, weighted.weight.device)
        made._set_frozen(not made.training)
        return made

    def to_float(self) -> Any:
        """The float form with the batch norm folded: the weighted module, or it and its relu in a container."""
        made = like(self._FLOAT_WEIGHTED, self)
        for name in ("freeze_bn", "_enable_slow_path_for_better_numerical_stability"):
            made.__dict__.pop(name, None)
        weight, bias = fold_modules(self, self.bn)
        made._parameters.update({"weight": nn.Parameter(weight), "bias": nn.Parameter(bias)})
        if self._FLOAT_FOLDED is None:
            return made
        folded = self._FLOAT_FOLDED(made, nn.ReLU())
        folded.train(self.training)
        return folded


def update_bn_stats(mod: nn.Module) -> None:
    """Let a module with a batch norm follow the batches: ``model.apply(update_bn_stats)``; nothing for any other."""
    if isinstance(mod, WithBatchNorm):
        mod.update_bn_stats()


def freeze_bn_stats(mod: nn.Module) -> None:
    """Freeze the statistics of a module with a batch norm; nothing for any other module."""
    if isinstance(mod, WithBatchNorm):
        mod.freeze_bn_stats()
