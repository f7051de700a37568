"""Names with a leading underscore, and modules, that code around the original imports, PyTorch's own tests among it.

Only what has the same meaning here is kept; each module says where the original has its names.
"""
