"""`make chaos-peers`: hc_signals and other systems under the same writers and faults, judged by specs/history.py."""
