"""Fusions: one file a family."""
