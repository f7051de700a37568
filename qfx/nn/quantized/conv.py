"""Quantized convolutions, plain and transposed, in one, two and three dimensions.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch._jit_internal import is_scripting

from qfx.errors import ConfigError
from qfx.kernels.packing import PackedSpec, reaches_direct_kernel
from qfx.nn.errors import InputError, ModuleTypeError
from qfx.nn.quantized.module import PackedModule, blank_weight, check_rank, empty, made_empty, refuse_devices
from qfx.nn.quantized.saved import Loading, SavedScale
from qfx.nn.sizes import LAYOUTS, numeric_padding, sizes
from qfx.nn.weights import observed_weight, output_qparams

_ops = torch.ops.quantized


class _ConvBase(PackedModule, SavedScale):
    """Everything the six convolutions share. A subclass says how many dimensions it has and which operators compute
    it."""

    __constants__ = [  # noqa: RUF012
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "transposed", "output_padding",
        "groups", "padding_mode", "engine", "_engine_given", "_rank", "_layout", "_kernel_padding", "_side_padding",
        "_direct", "_beside_direct",
    ]  # fmt: skip

    _bias: torch.Tensor | None
    _DIMS = 0
    _OP: Any = None
    _PREPACK: Any = None
    _FLOAT_MODULE: Any = ()
    _PADDING_MODES: tuple[str, ...] = ("zeros", "reflect")
    _CACHES = ("_packed_params", "_op", "_prepack")

    def _init(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        transposed: bool,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        engine: str | None,
    ) -> None:
        super().__init__()
        if out_channels <= 0:
            raise InputError(f"out_channels must be greater than 0, got {out_channels}")
        if in_channels % groups != 0:
            raise InputError(f"in_channels must be divisible by groups, got {in_channels} and {groups}")
        if out_channels % groups != 0:
            raise InputError(f"out_channels must be divisible by groups, got {out_channels} and {groups}")
        if padding_mode not in self._PADDING_MODES:
            said = (
                f'Only "zeros" padding mode is supported for {type(self).__name__}'
                if transposed
                else f"{type(self).__name__} does not support reflection padding"
                if padding_mode == "reflect"
                else f"'padding_mode' {padding_mode} is not supported by quantized convolution"
            )
            raise ConfigError(f"{said} ({self._get_name()}); use {' or '.join(self._PADDING_MODES)}")
        refuse_devices(self._get_name(), device)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = sizes(kernel_size, self._DIMS)
        self.stride, self.dilation = sizes(stride, self._DIMS), sizes(dilation, self._DIMS)
        self.padding = numeric_padding(padding, self.kernel_size, self.dilation)
        self.transposed, self.output_padding, self.groups = transposed, sizes(output_padding, self._DIMS), groups
        self.padding_mode = padding_mode
        # Any other padding than zeros is done before the kernel, which then pads nothing.
        self._kernel_padding = self.padding if padding_mode == "zeros" else (0,) * self._DIMS
        self._direct = transposed and reaches_direct_kernel(self.kernel_size, self._kernel_padding, groups)
        self._beside_direct = (0, *self.dilation[1:]) if self._direct else self._kernel_padding
        self._side_padding = tuple(pad for pad in reversed(self.padding) for _ in range(2))
        self._rank, self._layout = self._DIMS + 2, LAYOUTS[self._DIMS]
        self.scale, self.zero_point = 1.0, 0
        self._choose_engine(engine)
        self._bind()
        if made_empty():
            return
        channels = (in_channels, out_channels // groups) if transposed else (out_channels, in_channels // groups)
        self._hold(blank_weight(*channels, *self.kernel_size), torch.zeros(out_channels) if bias else None)

    def _bind(self) -> None:
        # On the instance, not the class: TorchScript finds operators only there.
        self._op, self._prepack = self._OP, self._PREPACK

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    def extra_repr(self) -> str:
        """Geometry and output qparams, without what is at its default."""
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"scale={self.scale}, zero_point={self.zero_point}"
        )
        for name, default in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            if set(getattr(self, name)) != {default}:
                text += f", {name}={getattr(self, name)}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias() is not None else text + ", bias=False"

    def _packed_spec(self) -> PackedSpec:
        return PackedSpec(
            f"conv{self._DIMS}d",
            self._weight,
            self._bias,
            stride=self.stride,
            padding=self._kernel_padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
            transposed=self.transposed,
            engine=self.engine,
        )

    def _script_repack(self) -> None:
        raise NotImplementedError

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve a ``torch.quint8`` input of shape (N, C, L), (N, C, H, W) or (N, C, D, H, W)."""
        check_rank(input, self._rank, self._layout)
        if self.padding_mode != "zeros":
            input = F.pad(input, self._side_padding, mode=self.padding_mode)
        return self._op(input, self._packed_params, self.scale, self.zero_point)  # type: ignore[no-any-return]

    # State dict: weight (int8), bias, scale, zero_point.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"], destination[prefix + "bias"] = self._weight_bias()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        weight = loading.take("weight", self._weight)
        bias = loading.take("bias", self._bias)
        if loading.fits("weight", weight, self._weight.shape):
            self._hold(weight, bias)

    # Python copies and pickles keep the whole __dict__ but the caches; a script has its own, typed state. TorchScript
    # compiles only the first branch of each.

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, torch.Tensor | None, float, int, bool]:
        """The state without the packed weight."""
        if is_scripting():
            return (self._weight, self._bias, self.scale, self.zero_point, self.training)
        else:
            return self._python_state()  # type: ignore[return-value]

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, torch.Tensor | None, float, int, bool]) -> None:
        """Take the state and pack the weight for this machine."""
        if is_scripting():
            self._weight = state[0]
            self._bias = state[1]
            self.scale = state[2]
            self.zero_point = state[3]
            self.training = state[4]
            self._script_repack()
        else:
            self._restore(state)

    def _restore(self, state: Any) -> None:
        if isinstance(state, tuple):
            self._adopt(state)
            return
        self._bind()
        super()._restore(state)

    def _adopt(self, state: Any) -> None:
        # The original pickles the arguments of its constructor, weight and bias, scale, zero point and training.
        names = (
            "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "transposed",
            "output_padding", "groups", "padding_mode",
        )  # fmt: skip
        given = dict(zip(names, state, strict=False))
        if not given.pop("transposed"):
            del given["output_padding"]
        weight, bias, scale, zero_point, training = state[len(names) :]
        with empty():
            made = type(self)(**given)
        made._hold(weight, bias)
        self.__dict__ = made.__dict__ | {"scale": scale, "zero_point": zero_point, "training": training}

    @classmethod
    def _like(cls, module: Any, engine: str | None) -> Any:
        """A blank module with the geometry of a float or reference convolution."""
        transposed = {"output_padding": module.output_padding} if module.transposed else {}
        return cls(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            dilation=module.dilation,
            groups=module.groups,
            bias=module.bias is not None,
            padding_mode=module.padding_mode,
            device=module.weight.device,
            engine=engine,
            **transposed,
        )

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False, *, engine: str | None = None) -> Any:
        """Quantize an observed float convolution (or fused pair, or QAT module).

        Args:
            mod: a module of the class this one replaces, with ``qconfig`` and, for static quantization, a calibrated
                ``activation_post_process``; or its QAT form with ``weight_fake_quant``. It is not changed.
            use_precomputed_fake_quant: take the weight observer's range as it is.
            engine: who packs the weight; None for the engine selected in torch.

        Raises:
            ModuleTypeError: another class, or no qconfig or observer.
            ConfigError: the weight observer is not one of int8.
        """
        if hasattr(mod, "weight_fake_quant") and not hasattr(mod, "activation_post_process"):
            raise ModuleTypeError(f"{cls.__name__}.from_float: Input QAT module must have observer attached")
        conv, weight, bias = observed_weight(cls, mod, cls._float_modules(), use_precomputed_fake_quant)
        with empty():
            made = cls._like(conv, engine)
        made._hold(weight, bias)
        observer = getattr(mod, "activation_post_process", None)
        if observer is not None and observer.dtype not in (torch.float, torch.float32):
            made.scale, made.zero_point = output_qparams(mod, cls.__name__)
        return made

    @classmethod
    def from_reference(
        cls, ref_qconv: Any, output_scale: float, output_zero_point: int, *, engine: str | None = None
    ) -> Any:
        """Pack a reference convolution (or a fused container that starts with one).

        Args:
            ref_qconv: a module of ``qfx.nn.quantized.reference``.
            output_scale, output_zero_point: of the output; numbers or tensors of one element.
            engine: who packs the weight; None for the engine selected in torch.

        Raises:
            ModuleTypeError: the container still has its batch norm.
            KernelError: the engine does not take this weight.
        """
        reference = cls._weighted_part(ref_qconv)
        with empty():
            made = cls._like(reference, engine)
        made._hold(reference.get_quantized_weight(), reference.bias)
        made.scale, made.zero_point = float(output_scale), int(output_zero_point)
        return made


class _ConvNd(_ConvBase):
    """Constructor and packing of the plain convolutions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        engine: str | None = None,
    ) -> None:
        self._init(
            in_channels, out_channels, kernel_size, stride, padding, dilation, False, 0, groups, bias, padding_mode,
            device, engine
        )  # fmt: skip

    def _script_repack(self) -> None:
        self._packed_params = self._prepack(
            self._weight, self._bias, self.stride, self._kernel_padding, self.dilation, self.groups
        )


class _ConvTransposeNd(_ConvBase):
    """Constructor and packing of the transposed convolutions."""

    _PADDING_MODES = ("zeros",)

    def _out_channels(self, weight: torch.Tensor) -> int:
        return weight.shape[1] * self.groups

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        engine: str | None = None,
    ) -> None:
        self._init(
            in_channels, out_channels, kernel_size, stride, padding, dilation, True, output_padding, groups, bias,
            padding_mode, device, engine,
        )  # fmt: skip

    def _script_repack(self) -> None:
        weight, padding = self._weight, self._kernel_padding
        if self._direct:  # see qfx.kernels.packing; right for every engine
            weight, padding = F.pad(weight, [1, 1]), self._beside_direct
        self._packed_params = self._prepack(
            weight, self._bias, self.stride, padding, self.output_padding, self.dilation, self.groups
        )


class Conv1d(_ConvNd):
    """Quantized ``nn.Conv1d``: (N, C, L) of ``torch.quint8`` in and out.

    The constructor is that of ``nn.Conv1d`` (``dtype`` is accepted and without effect, ``padding_mode`` is zeros or
    reflect) with the keyword ``engine``; a new module has zero weights, ``scale`` 1.0 and ``zero_point`` 0.

    Example:
        >>> m = Conv1d(4, 8, 3, padding=1)
        >>> m.set_weight_bias(qweight, bias)  # doctest: +SKIP
        >>> m.scale, m.zero_point = 0.05, 128
    """

    _DIMS = 1
    _FLOAT_MODULE = nn.Conv1d
    _OP = _ops.conv1d
    _PREPACK = _ops.conv1d_prepack


class Conv2d(_ConvNd):
    """Quantized ``nn.Conv2d``: (N, C, H, W) of ``torch.quint8`` in and out; see :class:`Conv1d`."""

    _DIMS = 2
    _FLOAT_MODULE = nn.Conv2d
    _OP = _ops.conv2d
    _PREPACK = _ops.conv2d_prepack


class Conv3d(_ConvNd):
    """Quantized ``nn.Conv3d``: (N, C, D, H, W) of ``torch.quint8`` in and out, zero padding only; see
    :class:`Conv1d`."""

    _DIMS = 3
    _FLOAT_MODULE = nn.Conv3d
    _OP = _ops.conv3d
    _PREPACK = _ops.conv3d_prepack
    _PADDING_MODES = ("zeros",)


class ConvTranspose1d(_ConvTransposeNd):
    """Quantized ``nn.ConvTranspose1d``; weights per tensor but for qnnpack, no output padding with onednn."""

    _DIMS = 1
    _FLOAT_MODULE = nn.ConvTranspose1d
    _OP = _ops.conv_transpose1d
    _PREPACK = _ops.conv_transpose1d_prepack


class ConvTranspose2d(_ConvTransposeNd):
    """Quantized ``nn.ConvTranspose2d``; see :class:`ConvTranspose1d`."""

    _DIMS = 2
    _FLOAT_MODULE = nn.ConvTranspose2d
    _OP = _ops.conv_transpose2d
    _PREPACK = _ops.conv_transpose2d_prepack


class ConvTranspose3d(_ConvTransposeNd):
    """Quantized ``nn.ConvTranspose3d``; see :class:`ConvTranspose1d`. Not with qnnpack, whose kernel computes it
    wrong."""

    _DIMS = 3
    _FLOAT_MODULE = nn.ConvTranspose3d
    _OP = _ops.conv_transpose3d
    _PREPACK = _ops.conv_transpose3d_prepack
