"""`make bench`: how fast hc_signals is, beside the least that could do the same work and beside its peers.

Ratios count, not absolute numbers: what is compared takes turns within one run, a median of several rounds is shown.
"""
