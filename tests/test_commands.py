"""The parts that our commands share: errors as one sentence, Ctrl-C and SIGTERM."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError, OperationalError
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.exceptions import ConfigurationError
from hc_signals.management.command import OwnCommand
from hc_signals.management.interruption import interruptible
from hc_signals.postgres.errors import ReadOnlyError

ROOT = Path(__file__).parent.parent
BUSY = """
import time
from hc_signals.management.interruption import interruptible
with interruptible():
    print("busy", flush=True)
    while True:
        time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConfigurationError("The setting is wrong."), "The setting is wrong."),
        (ConnectionDoesNotExist("There is no such connection."), "There is no such connection."),
        (ReadOnlyError("The database is a follower."), "The database is a follower."),
        (OperationalError("gone\nDETAIL: secret"), "The database 'default' answered: gone"),
        (InterfaceError("closed"), "The database 'default' answered: closed"),
        (CommandError("Wrong usage.", returncode=2), "Wrong usage."),
    ],
)
def test_error_of_a_command_is_one_sentence(error: Exception, sentence: str) -> None:
    class Failing(OwnCommand):
        def handle(self, *args: Any, **options: Any) -> None:
            raise error

    with pytest.raises(CommandError) as raised:
        call_command(Failing())
    assert str(raised.value) == sentence
    assert raised.value.returncode == getattr(error, "returncode", 1)


def test_error_in_the_code_is_no_sentence() -> None:
    """A bug of hc_signals must not look like a mistake of the user."""

    class Broken(OwnCommand):
        def handle(self, *args: Any, **options: Any) -> None:
            raise KeyError("bug")

    with pytest.raises(KeyError):
        call_command(Broken())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_is_noted_and_ends_a_sleep(number: int, code: int) -> None:
    before, stopping = signal.getsignal(number), threading.Event()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
    began = time.monotonic()
    with interruptible(stopping) as interruption:
        assert not interruption
        timer.start()
        interruption.sleep(60)
    assert time.monotonic() - began < 30
    assert interruption and interruption.exit_code == code and stopping.is_set()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_second_signal_ends_the_process_at_once(number: int, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "busy\n"
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(number)
            time.sleep(0.05)
        assert process.poll() == code
    finally:
        process.kill()
        process.stdout.close()
        process.wait(timeout=60)
