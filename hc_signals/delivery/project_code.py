"""Contains the project's code, which may raise anything and may fork: other receivers and the worker go on."""

import os
import signal
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

_forks = 0
"""How many forks lie between this process and the one that imported the module."""


def _count_fork() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def ends_program(error: BaseException) -> bool:
    """Return whether an exception is a Ctrl-C that ends the program, and not one that the project's code raised.

    It is none if a command of ours handles SIGINT itself, nor in another thread than the main one.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(ends_program(each) for each in error.exceptions)
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


class nothing_forked:
    """End a child process at the end of the block: it shares the sockets of its parent."""

    __slots__ = ("_forks",)

    def __enter__(self) -> None:
        self._forks = _forks

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._forks != _forks:
            is_code = isinstance(error, SystemExit) and isinstance(error.code, int)
            os._exit(error.code if is_code else int(error is not None))  # type: ignore[union-attr]


def contained(hook: Callable[[], Any], around: Callable[[], Any]) -> Callable[[], None]:
    """Return an ``on_commit`` hook whose errors Django logs, also one that would end the program.

    Args:
        hook: the project's.
        around: makes the context manager in which the hook runs.
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
