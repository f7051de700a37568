"""The pattern language, the matcher and the catalogue: shapes of graphs, nothing of quantization policy."""

if __name__ != "qfx.patterns":
    raise ImportError("import qfx.patterns, never patterns: a second copy of every class would appear")
