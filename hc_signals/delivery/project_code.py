"""Runs code of the project's that may raise anything, and may fork: nobody else may suffer from either."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

_forks = 0
"""How many forks lie between this process and the one that imported the module."""


def _count_fork() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def ends_program(error: BaseException) -> bool:
    """Tell whether an exception is a Ctrl-C that ends the program, and not something that the project's code raised.

    Where a command of ours handles SIGINT itself, or in a thread that Python interrupts never, nobody has pressed it.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(ends_program(each) for each in error.exceptions)
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


@contextmanager
def nothing_forked() -> Iterator[None]:
    """End a child process that comes out of the block: it has the sockets of its parent, which must not notice it."""
    forks, code = _forks, 0
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        raise
    finally:
        if forks != _forks:
            os._exit(code)


def contained(hook: Callable[[], Any], around: Callable[[], Any]) -> Callable[[], None]:
    """Return an ``on_commit`` hook that lets out what Django logs, and nothing that would end the program.

    Args:
        hook: the project's.
        around: makes the context manager in which it runs.
    """

    @wraps(hook)
    def run() -> None:
        try:
            with around(), nothing_forked():
                hook()
        except BaseException as error:
            if isinstance(error, Exception) or ends_program(error):
                raise
            raise RuntimeError(f"an on_commit hook raised {type(error).__name__}") from error

    return run
