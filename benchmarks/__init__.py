"""`make bench` compares hc_signals with a bare loop that does the same work, and with its peers.

Ratios count, not absolute numbers. Both sides of a ratio take turns within one run; the median of the rounds is shown.
"""
