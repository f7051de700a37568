"""Multi-head attention in parts that can be observed.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.nn.errors import ModuleTypeError, UnsupportedError
from qfx.nn.quantized.functional_modules import FloatFunctional
from qfx.nn.quantized.module import cat, refuse
from qfx.nn.stubs import DeQuantStub, QuantStub
from qfx.nn.workflow import workflow

_PROJECTIONS = ("linear_Q", "linear_K", "linear_V")


class MultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` taken apart: linear layers of its own for query, key, value and output.

    The projections are observed and become integers; the attention itself (products, masks, softmax) stays float.

    Args: those of ``nn.MultiheadAttention``. The parameters of the float class are there as well, without use.

    Example:
        >>> x = torch.zeros(5, 3, 8)
        >>> output, weights = MultiheadAttention(8, 2)(x, x, x)
        >>> output.shape, weights.shape
        (torch.Size([5, 3, 8]), torch.Size([3, 5, 5]))
    """

    _FLOAT_MODULE: Any = nn.MultiheadAttention
    __constants__ = ["batch_first", "add_zero_attn"]  # noqa: RUF012

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )
        self.linear_Q, self.linear_K, self.linear_V, self.out_proj = (  # type: ignore[assignment]
            nn.Linear(size, embed_dim, bias, device, dtype) for size in (embed_dim, self.kdim, self.vdim, embed_dim)
        )
        self.q_scaling_product = FloatFunctional()
        self.quant_attn_output, self.quant_attn_output_weights = QuantStub(), QuantStub()
        self.dequant_q, self.dequant_k, self.dequant_v = DeQuantStub(), DeQuantStub(), DeQuantStub()

    def _get_name(self) -> str:
        return "QuantizableMultiheadAttention"

    @classmethod
    def from_float(cls, other: Any) -> Any:
        """Take a float module apart and prepare it for calibration.

        Args:
            other: an ``nn.MultiheadAttention`` with a ``qconfig``. Its weights are shared, not copied.

        Raises:
            ModuleTypeError: another class, or no ``qconfig``.
            ConfigError: eager mode is not loaded.
        """
        if type(other) is not cls._FLOAT_MODULE:
            raise ModuleTypeError(
                f"{cls.__name__}.from_float expects a {cls._FLOAT_MODULE.__name__}, got {type(other).__name__}"
            )
        if not hasattr(other, "qconfig"):
            raise ModuleTypeError(f"{cls.__name__}.from_float got a module without a qconfig; set one first")
        made: Any = cls(
            other.embed_dim, other.num_heads, other.dropout, other.in_proj_bias is not None, other.bias_k is not None,
            other.add_zero_attn, other.kdim, other.vdim, other.batch_first,
        )  # fmt: skip
        made.bias_k, made.bias_v, made.qconfig = other.bias_k, other.bias_v, other.qconfig
        made.out_proj.weight, made.out_proj.bias = other.out_proj.weight, other.out_proj.bias
        if other._qkv_same_embed_dim:
            weights = other.in_proj_weight.chunk(3)
        else:
            weights = (other.q_proj_weight, other.k_proj_weight, other.v_proj_weight)
        biases = (None,) * 3 if other.in_proj_bias is None else other.in_proj_bias.chunk(3)
        for name, weight, bias in zip(_PROJECTIONS, weights, biases, strict=True):
            linear = getattr(made, name)
            linear.weight = nn.Parameter(weight, weight.requires_grad)
            linear.bias = None if bias is None else nn.Parameter(bias, bias.requires_grad)
        return workflow().prepare(made.eval())

    @classmethod
    def from_observed(cls, other: Any) -> Any:
        """Not for use: ``qfx.nn.quantized.MultiheadAttention`` is made from an observed module."""
        raise UnsupportedError(
            f"{cls.__name__} is an observed module already; convert it with "
            "qfx.nn.quantized.MultiheadAttention.from_observed"
        )

    @torch.jit.unused
    def dequantize(self) -> nn.MultiheadAttention:
        """The float module whose parameters are what the quantized ones stand for."""
        pairs: list[Any] = [getattr(self, name)._weight_bias() for name in (*_PROJECTIONS, "out_proj")]
        first = pairs[0][1]
        made = nn.MultiheadAttention(
            self.embed_dim, self.num_heads, self.dropout, first is not None, self.bias_k is not None,
            self.add_zero_attn, self.kdim, self.vdim, self.batch_first,
        )  # fmt: skip
        weights, biases = [weight.dequantize() for weight, _ in pairs], [bias for _, bias in pairs]
        values: dict[str, Tensor] = {"out_proj.weight": weights[3]}
        if made._qkv_same_embed_dim:
            values["in_proj_weight"] = torch.cat(weights[:3])
        else:
            values |= dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), weights, strict=False))
        if first is not None:
            values |= {"in_proj_bias": torch.cat(biases[:3]), "out_proj.bias": biases[3]}
        for name in ("bias_k", "bias_v"):
            if getattr(self, name) is not None:
                values[name] = getattr(self, name).dequantize()
        made.load_state_dict(values)
        return made.train(self.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; the arguments are those of ``nn.MultiheadAttention``, for batches, and masks are never implied.

        Args:
            query, key, value: (sequence, batch, features), or (batch, sequence, features) with ``batch_first``.
            key_padding_mask: (batch, keys): True where a key is left out, or floats to be added.
            need_weights: whether the attention weights are returned.
            attn_mask: (queries, keys) or (batch * heads, queries, keys): True where attention is left out, or floats
                to be added.
            average_attn_weights: whether the weights are the mean over the heads.
            is_causal: not supported; give the mask.

        Returns:
            The output, of the query's shape; and the weights, (batch, queries, keys), with a dimension of heads after
            the batch where they are not averaged, or None.

        Raises:
            InputError: a size or dtype that does not fit, or ``is_causal``.
        """
        if is_causal:
            refuse("causal mask not supported by this MultiheadAttention; give it as attn_mask")
        if self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        targets, batch, features = query.size()
        if features != self.embed_dim:
            refuse(f"the query has {features} features, embed_dim is {self.embed_dim}")
        if key.size(0) != value.size(0) or key.size(1) != value.size(1):
            refuse(f"key and value are of different lengths or batches: {key.size()} and {value.size()}")
        q = self.q_scaling_product.mul_scalar(self.linear_Q(query), float(self.head_dim) ** -0.5)
        k, v = self.linear_K(key), self.linear_V(value)
        bias_k, bias_v = self.bias_k, self.bias_v
        extra = 0
        if bias_k is not None and bias_v is not None:
            k = cat([k, bias_k.repeat(1, batch, 1)], 0)
            v = cat([v, bias_v.repeat(1, batch, 1)], 0)
            extra += 1
        q, k, v = self._heads(q, batch), self._heads(k, batch), self._heads(v, batch)
        if self.add_zero_attn:
            k, v = self._with_zeros(k), self._with_zeros(v)
            extra += 1
        sources = k.size(1)
        # Masks and softmax are made of floats.
        weights = torch.bmm(self.dequant_q(q), self.dequant_k(k).transpose(1, 2))
        if attn_mask is not None:
            weights = self._masked(weights, self._sized(attn_mask, batch, targets, sources - extra), extra)
        if key_padding_mask is not None:
            if key_padding_mask.size(0) != batch or key_padding_mask.size(1) != sources - extra:
                refuse(f"key_padding_mask is {key_padding_mask.size()}, not {[batch, sources - extra]}")
            by_head = key_padding_mask.unsqueeze(1).repeat(1, self.num_heads, 1).reshape(-1, 1, sources - extra)
            weights = self._masked(weights, by_head, extra)
        weights = F.dropout(F.softmax(weights, dim=-1), p=self.dropout, training=self.training)
        output = torch.bmm(weights, self.dequant_v(v)).transpose(0, 1).reshape(targets, batch, self.embed_dim)
        if self.batch_first:
            output = output.transpose(0, 1)
        output = self.out_proj(self.quant_attn_output(output.contiguous()))
        weights = self.quant_attn_output_weights(weights)
        if not need_weights:
            return output, None
        weights = weights.view(batch, self.num_heads, targets, sources)
        return output, weights.mean(dim=1) if average_attn_weights else weights

    def _heads(self, x: Tensor, batch: int) -> Tensor:
        """(sequence, batch, features) to (batch * heads, sequence, features of a head)."""
        return x.contiguous().view(-1, batch * self.num_heads, self.head_dim).transpose(0, 1)

    def _with_zeros(self, x: Tensor) -> Tensor:
        """One more place in the sequence, of zeros."""
        zeros = torch.zeros([x.size(0), 1, x.size(2)])
        if x.is_quantized:
            zeros = torch.quantize_per_tensor(zeros, x.q_scale(), x.q_zero_point(), x.dtype)
        return torch.cat([x, zeros], dim=1)

    def _sized(self, mask: Tensor, batch: int, targets: int, sources: int) -> Tensor:
        """An attention mask in three dimensions."""
        if mask.dim() == 2:
            mask = mask.unsqueeze(0)
            if mask.size(1) != targets or mask.size(2) != sources:
                refuse(f"The size of the 2D attn_mask is not correct: {mask.size()[1:]}, not {[targets, sources]}")
        elif mask.dim() == 3:
            expected = [batch * self.num_heads, targets, sources]
            if mask.size(0) != expected[0] or mask.size(1) != targets or mask.size(2) != sources:
                refuse(f"The size of the 3D attn_mask is not correct: {mask.size()}, not {expected}")
        else:
            refuse(f"attn_mask's dimension {mask.dim()} is not supported")
        return mask

    def _masked(self, weights: Tensor, mask: Tensor, extra: int) -> Tensor:
        """Weights with a mask applied that leaves the ``extra`` places at the end alone."""
        if mask.dtype == torch.uint8:
            mask = mask.to(torch.bool)
        if not mask.is_floating_point() and mask.dtype != torch.bool:
            refuse(f"Only float and bool types are supported for masks, not {mask.dtype}")
        mask = F.pad(mask, [0, extra])
        return weights.masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else weights + mask
