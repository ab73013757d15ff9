"""A project of hc_signals for the comparison."""
