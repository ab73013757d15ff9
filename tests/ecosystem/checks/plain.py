"""The example alone."""

PACKAGES = ("Django",)
