"""What was quantized, what was not, and why."""

from __future__ import annotations

from qfx.report.entries import Entry as Entry
from qfx.report.explain import Explanation as Explanation
from qfx.report.explain import Summary as Summary
from qfx.report.explain import explain as explain
from qfx.report.explain import summary as summary
