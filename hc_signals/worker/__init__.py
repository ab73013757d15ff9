"""The process of ``hc_listen``: its threads, their loop, the doorbell that wakes them, their chores."""
