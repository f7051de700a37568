"""The catalogue: one file a family of patterns."""
