"""Float modules taken apart into pieces that can be observed; ``qfx.nn.quantized`` has what they become.

They are custom modules: ``from_float`` prepares one, ``from_observed`` of the quantized class converts it.
"""

from __future__ import annotations

from qfx.nn.quantizable.attention import MultiheadAttention
from qfx.nn.quantizable.cell import LSTMCell
from qfx.nn.quantizable.rnn import LSTM, _LSTMLayer, _LSTMSingleLayer

__all__ = ["LSTM", "LSTMCell", "MultiheadAttention", "_LSTMLayer", "_LSTMSingleLayer"]
