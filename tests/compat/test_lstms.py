"""``fx.lstm_utils`` under compat."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import qfx.compat
qfx.compat.install()
from torch.ao.quantization.fx import lstm_utils
from qfx.api import lstm_parts
assert lstm_utils._get_lstm_with_individually_observed_parts is lstm_parts.observe_lstm_parts
assert lstm_utils._get_reference_quantized_lstm_module is lstm_parts.reference_lstm_of_parts
print("both")
"""


def test_the_functions_for_lstms_in_parts_are_there_by_their_old_names() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.stdout == "both\n", done.stderr
