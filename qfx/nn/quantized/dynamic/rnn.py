"""Dynamically quantized LSTM and GRU.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from qfx.nn.quantized.dynamic.rnn_base import RNNBase


def apply_permutation(tensor: Tensor, permutation: Tensor, dim: int = 1) -> Tensor:
    """Reorder a tensor along ``dim``; ``tensor.index_select`` says the same."""
    return tensor.index_select(dim, permutation)


class LSTM(RNNBase):
    """``nn.LSTM`` on floats whose products are done in integers; inputs are quantized in every step.

    Its arguments are those of ``nn.LSTM`` up to ``bidirectional``, then ``dtype`` and the keyword ``engine``, see
    :class:`RNNBase`. Input and output are float32 tensors of three dimensions or packed sequences.

    Example:
        >>> output, (h, c) = LSTM(10, 20, 2)(torch.zeros(5, 3, 10))
        >>> output.shape, h.shape
        (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    _FLOAT_MODULE = nn.LSTM
    __overloads__ = {"forward": ["forward_packed", "forward_tensor"]}  # noqa: RUF012

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype,
            engine=engine,
        )  # fmt: skip

    def _get_name(self) -> str:
        return "DynamicQuantizedLSTM"

    def check_forward_args(self, input: Tensor, hidden: tuple[Tensor, Tensor], batch_sizes: Tensor | None) -> None:
        """Refuse an input or a hidden state of another size."""
        self.check_input(input, batch_sizes)
        expected = self.get_expected_hidden_size(input, batch_sizes)
        self.check_hidden_size(hidden[0], expected, "Expected hidden[0] size {}, got {}")
        self.check_hidden_size(hidden[1], expected, "Expected hidden[1] size {}, got {}")

    def permute_hidden(  # type: ignore[override]
        self, hx: tuple[Tensor, Tensor], permutation: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Reorder the batch of a hidden and a cell state."""
        if permutation is None:
            return hx
        return hx[0].index_select(1, permutation), hx[1].index_select(1, permutation)

    def forward_impl(
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor] | None,
        batch_sizes: Tensor | None,
        max_batch_size: int,
        sorted_indices: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Output and final states, those of a packed sequence in the order of its data."""
        if hx is None:
            zeros = self._zeros(input, max_batch_size)
            hx = (zeros, zeros)
        else:
            hx = self.permute_hidden(hx, sorted_indices)
        if isinstance(input, Tensor):  # an fx proxy has no size yet
            self.check_forward_args(input, hx, batch_sizes)
        output, h, c = self._run(input, [hx[0], hx[1]], batch_sizes)
        return output, (h, c)

    @torch.jit.export
    def forward_tensor(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The forward of a tensor."""
        return self.forward_impl(input, hx, None, self._batch(input), None)

    @torch.jit.export
    def forward_packed(
        self, input: PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[PackedSequence, tuple[Tensor, Tensor]]:
        """The forward of a packed sequence."""
        data, batch_sizes, sorted_indices, unsorted_indices = input
        output, hidden = self.forward_impl(data, hx, batch_sizes, int(batch_sizes[0]), sorted_indices)
        packed = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
        return packed, self.permute_hidden(hidden, unsorted_indices)

    @torch.jit.ignore
    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run a sequence; ``hx`` is the pair of initial hidden and cell states, zeros by default.

        Returns:
            The output, a tensor or packed sequence as the input, and the pair of final states.
        """
        return self.forward_packed(input, hx) if isinstance(input, PackedSequence) else self.forward_tensor(input, hx)


class GRU(RNNBase):
    """``nn.GRU`` on floats whose products are done in integers; inputs are quantized in every step.

    Its arguments are those of ``nn.GRU`` up to ``bidirectional``, then ``dtype`` and the keyword ``engine``, see
    :class:`RNNBase`. Input and output are float32 tensors of three dimensions or packed sequences.

    Example:
        >>> output, h = GRU(10, 20, 2)(torch.zeros(5, 3, 10))
        >>> output.shape, h.shape
        (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    _FLOAT_MODULE = nn.GRU
    __overloads__ = {"forward": ["forward_packed", "forward_tensor"]}  # noqa: RUF012

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype,
            engine=engine,
        )  # fmt: skip

    def _get_name(self) -> str:
        return "DynamicQuantizedGRU"

    def check_forward_args(self, input: Tensor, hidden: Tensor, batch_sizes: Tensor | None) -> None:
        """Refuse an input or a hidden state of another size."""
        self.check_input(input, batch_sizes)
        self.check_hidden_size(hidden, self.get_expected_hidden_size(input, batch_sizes))

    def forward_impl(
        self,
        input: Tensor,
        hx: Tensor | None,
        batch_sizes: Tensor | None,
        max_batch_size: int,
        sorted_indices: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Output and final state, that of a packed sequence in the order of its data."""
        hx = self._zeros(input, max_batch_size) if hx is None else self.permute_hidden(hx, sorted_indices)
        if isinstance(input, Tensor):  # an fx proxy has no size yet
            self.check_forward_args(input, hx, batch_sizes)
        output, h, _ = self._run(input, [hx], batch_sizes)
        return output, h

    @torch.jit.export
    def forward_tensor(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The forward of a tensor."""
        return self.forward_impl(input, hx, None, self._batch(input), None)

    @torch.jit.export
    def forward_packed(self, input: PackedSequence, hx: Tensor | None = None) -> tuple[PackedSequence, Tensor]:
        """The forward of a packed sequence."""
        data, batch_sizes, sorted_indices, unsorted_indices = input
        output, hidden = self.forward_impl(data, hx, batch_sizes, int(batch_sizes[0]), sorted_indices)
        packed = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
        return packed, self.permute_hidden(hidden, unsorted_indices)

    @torch.jit.ignore
    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run a sequence; ``hx`` is the initial hidden state, zeros by default.

        Returns:
            The output, a tensor or packed sequence as the input, and the final hidden state.
        """
        return self.forward_packed(input, hx) if isinstance(input, PackedSequence) else self.forward_tensor(input, hx)
