"""Contains the project's code, which may raise anything and may fork: other receivers and the worker go on.

The message of an exception may hold a customer's data; the messages of our own log do not. So receivers' exceptions go
to a logger of their own, ``hc_signals.receivers``, for error trackers such as Sentry. It does not propagate, unless the
project's LOGGING names it: a console would print each failure twice.
"""

import asyncio
import inspect
import logging
import os
import signal
import sysconfig
import threading
import traceback

# signal.getsignal() calls it, makes an enum member of its value, and takes thirty times as long.
from _signal import getsignal as handler_of  # type: ignore[import-not-found]
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from signal import ITIMER_REAL, SIGALRM, getitimer
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings

from hc_signals.exceptions import HCSignalsError
from hc_signals.postgres.errors import is_database_error, one_line
from hc_signals.postgres.names import storable

logger = logging.getLogger("hc_signals.receivers")
# Without a handler Python would print them to stderr.
logger.addHandler(logging.NullHandler())
if logger.name not in (settings.LOGGING or {}).get("loggers", {}):
    logger.propagate = False

_NOT_OF_PROJECT = (
    *(str(Path(__file__).parents[1]), "<"),
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)
"""Beginnings of the file names of our own code, of Python's and of installed packages."""

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


class LeftRunning:
    """Ends what calls leave running in the process: a child process, or the timer of an alarm.

    A child shares the sockets of its parent. The signal of a timer (``signal.alarm()``, ``signal.setitimer()``) would
    interrupt other receivers, or our own code. A timer that ran before stays.
    """

    __slots__ = ("_forks", "_had_timer", "_handler", "_is_handled")

    def __init__(self) -> None:
        self._forks, self._had_timer = _forks, False
        self._note_handler()
        self._had_timer = self._has_timer()

    def _note_handler(self) -> None:
        self._handler = handler_of(SIGALRM)
        self._is_handled = callable(self._handler)

    def is_likely(self) -> bool:
        """Return whether the last call may have left a child, or a timer whose signal runs code of the project.

        It makes a system call only if the process has a handler for the signal.
        """
        if _forks != self._forks or handler_of(SIGALRM) is not self._handler:
            return True
        return self._is_handled and self._has_timer()

    def _has_timer(self) -> bool:
        return not self._had_timer and getitimer(ITIMER_REAL)[0] != 0.0

    def stop_unhandled(self) -> bool:
        """Stop a timer whose signal would end the process; return whether there was one.

        Any call since the last check may have left it, because :meth:`is_likely` does not find it.
        """
        is_left = not callable(handler_of(SIGALRM)) and self._has_timer()
        if is_left:
            signal.setitimer(ITIMER_REAL, 0)
        return is_left

    def check(self, error: BaseException | None) -> None:
        """End what a call has left; ``error`` is what it raised.

        Raises:
            RuntimeError: the timer was stopped.
        """
        if self._forks != _forks:
            is_code = isinstance(error, SystemExit) and isinstance(error.code, int)
            os._exit(error.code if is_code else int(error is not None))  # type: ignore[union-attr]
        self._note_handler()
        if self._has_timer():
            signal.setitimer(ITIMER_REAL, 0)
            if error is None:
                raise RuntimeError(
                    "The receiver left an alarm running, whose signal would interrupt other code; it is stopped. "
                    "End the alarm with signal.alarm(0) before the receiver returns."
                )


@contextmanager
def nothing_left() -> Iterator[None]:
    """End what the block has left running: see :class:`LeftRunning`."""
    left = LeftRunning()
    try:
        yield
    except BaseException as error:
        left.check(error)
        raise
    left.check(None)


def complete(result: Any) -> Any:
    """Run the rest of a receiver that has returned ``result``, which is not None; return its own result.

    Django takes an ``async def`` for a plain function if it is behind a decorator, or in a ``__call__``.

    Raises:
        TypeError: the receiver is a generator, whose code nothing runs.
        RuntimeError: it has left tasks in its event loop, whose work is lost.
    """
    if inspect.isawaitable(result):
        return async_to_sync(_awaited)(result)
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("The receiver is a generator, so its code has not run. Remove yield from it.")
    return result


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    before = asyncio.all_tasks()
    result = await awaitable
    if asyncio.all_tasks() - before:
        await asyncio.sleep(0)  # a task may be about to end
    if left := asyncio.all_tasks() - before:
        raise RuntimeError(
            f"The receiver left {len(left)} task(s) running, which are cancelled now. Await each task before the "
            "receiver returns."
        )
    return result


def contained(hook: Callable[[], Any], around: Callable[[], Any]) -> Callable[[], None]:
    """Return an ``on_commit`` hook, run in ``around()``, all of whose errors Django logs, except Ctrl-C."""

    @wraps(hook)
    def run() -> None:
        try:
            with around(), nothing_left():
                hook()
        except BaseException as error:
            if isinstance(error, Exception) or ends_program(error):
                raise
            raise RuntimeError(f"an on_commit hook raised {type(error).__name__}") from error

    return run


def show(receiver: str, error: BaseException, facts: dict[str, Any]) -> None:
    """Log a receiver's exception, with traceback. The ``facts`` describe the call, without a record's contents."""
    trace = type(error), error, error.__traceback__
    logger.error("Receiver %s raised %s", receiver, type(error).__name__, exc_info=trace, extra=facts)


def in_words(error: BaseException, *, has_lines: bool = True) -> str:
    """Return an error as one line without a value of a record: its class and place, or the server's words.

    ``has_lines``: with the number of the line.
    """
    if isinstance(error, HCSignalsError):
        return message_of(error)
    if is_database_error(error):
        return f"{type(error).__name__}: {one_line(error)}"
    place = _place(error, has_lines)
    return f"{type(error).__name__} at {place}" if place else type(error).__name__


def _place(error: BaseException, has_lines: bool) -> str:
    """Return where the project's code raised the error, or called the code that did."""
    found = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [each for each in found if not each[0].co_filename.startswith(_NOT_OF_PROJECT)]
    for code, line in reversed(own or found):
        file = "/".join(Path(code.co_filename).parts[-2:])
        return f"{file}:{line} {code.co_name}" if has_lines else f"{file} {code.co_name}"
    return ""


def message_of(error: BaseException) -> str:
    """Return the first line of an error's message, which may quote values of a record; the class if it has none."""
    lines = _text(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__


def trace_of(error: BaseException) -> str:
    """Return the traceback without the message: only the message may quote values."""
    return "".join(traceback.format_tb(error.__traceback__))


def describe(error: BaseException, using: str) -> str:
    """Return the text that is stored for an error: class and message, then the traceback."""
    text = f"{type(error).__name__}: {_text(error)[:5000]}\n{trace_of(error)[-5000:]}"
    return storable(text.rstrip(), using)


def split_error(text: str) -> tuple[str, str]:
    """Return the class and message of an error that :func:`describe` has written, and its traceback."""
    error, line, trace = text.partition('\n  File "')
    return error, f"{line[1:]}{trace}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as another:  # raised by a __str__ of the project
        return f"its message cannot be read ({type(another).__name__})"
