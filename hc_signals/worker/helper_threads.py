"""The loop of every helper thread of hc_listen: no exception ends it, and /healthz knows its last turn."""

from collections.abc import Callable
from threading import Event

from hc_signals.observing import Helper, as_helper

STUCK_SECONDS = 300.0
"""Longest turn of a helper; after that /healthz is red."""


def keep_turning(
    name: str, turn: Callable[[Helper], float], stopping: Event, *, limit: float = STUCK_SECONDS, longest: float = 60.0
) -> None:
    """Call ``turn`` in the calling thread until ``stopping`` is set.

    Args:
        name: of the helper, as /healthz and the log show it.
        turn: does what is due and returns the seconds until the next turn.
        stopping: ends the loop; it does not interrupt a turn.
        limit: seconds that a turn may take.
        longest: most seconds until the next turn after one that raised.
    """
    with as_helper(name, limit) as helper:
        trouble = helper.trouble(f"The {name}", longest)
        while not stopping.is_set():
            helper.turn()
            try:
                pause = turn(helper)
            # Not even what is to end a program: a helper's thread that ends would be missed by nobody.
            except BaseException as error:
                pause = trouble.happens(error)
            else:
                trouble.ends()
            helper.turn(pause)
            stopping.wait(pause)
