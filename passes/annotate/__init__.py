"""Decide which sites carry which spec: from a QConfigMapping and a BackendConfig to a solved plan."""
