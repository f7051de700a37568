"""The only code that changes a graph: rules, the rewriter, passes, pipelines, targets."""

if __name__ != "qfx.passes":
    raise ImportError("import qfx.passes, never passes: a second copy of every class would appear")
