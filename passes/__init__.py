"""The only code that changes a graph: rules, the rewriter, passes, pipelines, targets."""

if __name__ != "qfx.passes":
    raise ImportError("import qfx.passes, never passes: a second copy of every class would appear")

from qfx.passes.pipeline import Context as Context
from qfx.passes.pipeline import FunctionPass as FunctionPass
from qfx.passes.pipeline import Pass as Pass
from qfx.passes.pipeline import PassLog as PassLog
from qfx.passes.pipeline import Pipeline as Pipeline
from qfx.passes.pipeline import rewrite as rewrite
from qfx.passes.pipeline import run_steps as run_steps
from qfx.passes.rewriter import Rewriter as Rewriter
from qfx.passes.rule import Rule as Rule
from qfx.passes.rule import owned as owned
from qfx.passes.rule import rule as rule
