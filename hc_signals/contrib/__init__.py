"""Adapters for other packages; each needs its extra."""
