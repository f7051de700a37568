"""The public functions: prepare, convert, fuse."""
