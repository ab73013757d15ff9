"""hc_tail: changes as lines and as JSON, on a terminal and in a pipe; no worker and no other session waits for it."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from example.crm.models import Account

from hc_signals.log.append import append_gap, append_note
from hc_signals.log.schema import Cause
from hc_signals.log.tail import TailChange, read, start
from hc_signals.management.tail_lines import TextLines, json_line, width_of
from hc_signals.testing import HerokuConnect
from tests.conftest import ROOT, as_heroku_connect, as_the_app
from tests.test_worker_process import on_test_database, wait_until

HOSTILE = "a\x1b[31mb\x9bc\u202ed\u200be\nf\x00".replace("\x00", "")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")
SESSION = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hc_tail' AND datname = current_database()"


class Tail:
    """A running hc_tail. ``output`` is what it has written to its pipe or terminal, if that is read."""

    def __init__(self, *arguments: str, terminal: bool = False, reads: bool = True, **environment: str) -> None:
        self.reader, writer = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "example" / "manage.py"), "hc_tail", *arguments],
            env=on_test_database({"PYTHONUNBUFFERED": "1", **environment}),
            stdout=writer,
            stderr=subprocess.PIPE,
        )
        os.close(writer)
        self._parts: list[bytes] = []
        self._said: list[bytes] = []
        assert self.process.stderr is not None
        self._collect(self.process.stderr.fileno(), self._said)
        if reads:
            self.read()

    def read(self) -> None:
        """Begin to read the output."""
        self._collect(self.reader, self._parts)

    @staticmethod
    def _collect(file: int, parts: list[bytes]) -> None:
        def collect() -> None:
            try:
                while part := os.read(file, 65536):
                    parts.append(part)
            except OSError:  # of a terminal whose last process has ended
                pass

        threading.Thread(target=collect, daemon=True).start()

    @property
    def output(self) -> str:
        return b"".join(self._parts).decode().replace("\r\n", "\n")

    @property
    def said(self) -> str:
        """What it has written to stderr."""
        return b"".join(self._said).decode()

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.split("\n")[:-1]]

    def begins(self) -> "Tail":
        """Wait until it waits for changes."""
        wait_until(lambda: "notifies" in self.session() or self.process.poll() is not None)
        assert self.process.poll() is None, self.said
        return self

    @staticmethod
    def session() -> str:
        """Return ``notifies`` while the session listens and has nothing to do, ``gone`` if there is none."""
        with connection.cursor() as cursor:
            cursor.execute(SESSION.replace("pid", "state, backend_xmin, query", 1))
            found = cursor.fetchone()
        if found is None:
            return "gone"
        return "notifies" if found[:2] == ("idle", None) and "public.hc_signals" in found[2] else str(found)

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def tail(captured: HerokuConnect) -> Iterator[Callable[..., Tail]]:
    started: list[Tail] = []

    def launch(*arguments: str, **options: Any) -> Tail:
        started.append(Tail(*arguments, **options))
        return started[-1]

    yield launch
    for each in started:
        each.process.kill()
        each.process.wait()
        each.process.stderr.close()  # type: ignore[union-attr]
    wait_until(lambda: Tail.session() == "gone")


@pytest.fixture
def found(captured: HerokuConnect) -> Callable[[], list[TailChange]]:
    """Return a function that returns the changes since the beginning of the test."""
    place = start("default")
    return lambda: read("default", place).changes


def text(change: TailChange, width: int = 0, **options: Any) -> str:
    """Return the line of a change, without its time."""
    line = TextLines(lambda: width, {}, **options)(change)
    assert TIME.match(line), line
    assert not width or width_of(line) <= width
    return line[TIME.match(line).end() :]  # type: ignore[union-attr]


def test_line_has_type_model_record_and_fields(captured: HerokuConnect, found: Callable[[], Any]) -> None:
    (sfid,) = captured.insert(Account, name="Acme", industry="Energy")
    captured.update(Account, sfid, industry=None, number_of_employees=7)
    captured.delete(Account, sfid)
    captured.insert(Account, industry="Energy")
    created, updated, deleted, nameless = found()
    assert text(created) == "CREATE  crm.Account  Acme  industry: Energy"
    assert text(updated) == "UPDATE  crm.Account  Acme  industry: Energy → NULL, number_of_employees: NULL → 7"
    assert text(updated, fields=["number_of_employees"]).endswith("Acme  number_of_employees: NULL → 7")
    assert text(deleted) == "DELETE  crm.Account  Acme"
    assert text(nameless) == f"CREATE  crm.Account  {nameless.change.record_id}  industry: Energy"


def test_line_fits_the_terminal(captured: HerokuConnect, found: Callable[[], Any]) -> None:
    captured.insert(Account, name="漢字" * 60, industry="x" * 200)
    (sfid,) = captured.insert(Account, name="short", industry="a" * 30)
    captured.update(Account, sfid, industry="b" * 30, number_of_employees=1, annual_revenue=2)
    wide, _, updated = found()
    for width in (45, 60, 80, 120, 200):
        text(wide, width)
    rest = "annual_revenue: NULL → 2, number_of_employees: NULL → 1"
    assert text(updated, 200).endswith(f"industry: {'a' * 30} → {'b' * 30}, {rest}")
    assert text(updated, 170).endswith(f"industry: {'a' * 23}… → {'b' * 23}…, {rest}")
    assert text(updated, 100) == f"UPDATE  crm.Account  short  industry: {'a' * 11}… → {'b' * 11}…, and 2 more"
    assert text(updated, 60) == "UPDATE  crm.Account  short  3 fields"


def test_values_cannot_steer_a_terminal(captured: HerokuConnect, found: Callable[[], Any]) -> None:
    captured.insert(Account, name=HOSTILE, industry=HOSTILE)
    (change,) = found()
    escaped = "a\\x1b[31mb\\x9bc\\u202ed\\u200be\\nf"
    assert text(change) == f"CREATE  crm.Account  {escaped}  industry: {escaped}"
    assert json_line(change).isascii() and json_line(change).isprintable()
    assert json.loads(json_line(change))["instance"]["name"] == HOSTILE


def test_rows_of_whole_tables_have_lines(found: Callable[[], Any]) -> None:
    append_gap("default", "salesforce.account", Cause.TRIGGER_MISSING, None, "reports")
    append_note("default", "salesforce.account", "RELOADED", '{"cleared": 3, "changed": 1}')
    append_note("default", "salesforce.gone", "RELOADED", "{}")
    gap, reload, gone = found()
    assert re.fullmatch(
        r"GAP_OVERFLOW  crm.Account  changes may be missing: trigger_missing, .{15,30}, for consumer reports", text(gap)
    )
    assert text(reload) == "RELOADED  crm.Account  3 cleared, 1 changed"
    assert text(gone) == "RELOADED  salesforce.gone  "[:-2]
    assert json.loads(json_line(gap)) | {"instance": None, "cause": "trigger_missing", "consumer": "reports"} == (
        json.loads(json_line(gap))
    )
    assert json.loads(json_line(reload))["counts"] == {"cleared": 3, "changed": 1}


def test_json_has_the_names_of_events(captured: HerokuConnect, found: Callable[[], Any]) -> None:
    (sfid,) = captured.insert(Account, name="a")
    captured.update(Account, sfid, name="b")
    line = json.loads(json_line(found()[1]))
    assert line["changed_fields"] == ["name"]
    assert line["previous"] == {"name": "a"}
    assert line["instance"]["sf_id"] == line["record_id"] == sfid
    assert (line["change_type"], line["model"], line["entity_name"]) == ("UPDATE", "crm.Account", "Account")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--fields", "nme"], "The chosen models have no field 'nme'; did you mean name"),
        (["--model", "crm.No"], "There is no model 'crm.No'"),
        (["--since", "0123456789ab-000000000000001"], "is of another database"),
        (["--type", "create", "oops"], "invalid choice: 'OOPS'"),
        (["--since", "2h", "-n", "1"], "not allowed with"),
    ],
)
@pytest.mark.usefixtures("captured")
def test_wrong_arguments_are_refused(arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=re.escape(sentence)):
        call_command("hc_tail", *arguments)


def test_terminal_gets_colour_and_a_suspended_command_lets_go(
    tail: Callable[..., Tail], captured: HerokuConnect
) -> None:
    running = tail(terminal=True, TERM="xterm", NO_COLOR="").begins()
    wait_until(lambda: "hc_tail of 'default'; times in " in running.said)
    captured.insert(Account, name=HOSTILE, industry="x" * 250)
    wait_until(lambda: len(running.lines) == 1)
    painted = running.lines[0]
    assert set(re.findall(r"\x1b\[[\d;]*m", painted)) and painted.count("\x1b[31mb") == 0
    assert width_of(re.sub(r"\x1b\[[\d;]*m", "", painted)) <= 100
    running.process.send_signal(signal.SIGTSTP)
    wait_until(lambda: Path(f"/proc/{running.process.pid}/stat").read_text().split()[2] == "T")
    assert running.session() == "gone"
    captured.insert(Account, name="while it was suspended")
    running.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "while it was suspended" in running.output)
    assert running.stop() == 0


def test_lost_connection_loses_no_change(tail: Callable[..., Tail], captured: HerokuConnect) -> None:
    """The session is ended while a transaction is open that commits later."""
    running = tail("--type", "create", FORCE_COLOR="1").begins()
    before = connection.copy()
    try:
        with before.cursor() as cursor:
            cursor.execute("BEGIN; SET LOCAL xmlbinary = 'hex'")
            cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('late', 'late')")
            as_the_app(f"SELECT pg_terminate_backend(pid) FROM ({SESSION}) s")
            captured.insert(Account, name="early")
            cursor.execute("COMMIT")
    finally:
        before.close()
    wait_until(lambda: "early" in running.output and "late" in running.output)
    wait_until(lambda: "hc_tail works again after" in running.said)
    assert "hc_tail has no connection to the database: " in running.said
    assert len(running.lines) == 2
    assert "\x1b[" in running.output  # FORCE_COLOR
    assert running.stop(signal.SIGTERM) == 0


def test_full_pipe_holds_no_session_and_loses_no_change(tail: Callable[..., Tail], captured: HerokuConnect) -> None:
    captured.create(Account, 5)
    running = tail("--json", "--model", "crm.Account", "-n", "2", reads=False)
    wait_until(lambda: running.session() == "notifies")
    names = [f"{number}-{'x' * 240}" for number in range(500)]
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT n, v FROM unnest(%s::text[]) WITH ORDINALITY u (v, n)",
        [names],
    )
    wait_until(lambda: running.session() == "gone")
    running.read()
    wait_until(lambda: running.output.count("\n") == 502)
    assert [each["instance"]["name"] for each in running.objects[2:]] == names
    assert running.said == ""
    wait_until(lambda: running.session() == "notifies")
    assert running.stop() == 0


def test_closed_pipe_and_sigterm_end_it(tail: Callable[..., Tail], captured: HerokuConnect) -> None:
    """A closed pipe ends it without a next change; a signal ends it although its pipe is full."""
    reader = tail("--json", reads=False)
    full = tail("--json", "--since", "1h", reads=False)
    wait_until(lambda: reader.session() == "notifies")
    os.close(reader.reader)
    assert reader.process.wait(20) == 0
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT n, repeat('x', 240) FROM generate_series(1, 500) n"
    )
    wait_until(lambda: full.session() == "gone")
    assert full.stop(signal.SIGTERM) == 0
    assert reader.said == full.said == ""


def test_session_takes_no_lock_and_no_snapshot(tail: Callable[..., Tail], captured: HerokuConnect) -> None:
    """Killed without warning or stopped for ever, it keeps no worker asleep and no row from being cleaned up."""
    running = tail("--json").begins()
    captured.insert(Account, name="a")
    wait_until(lambda: len(running.objects) == 1)
    running.process.send_signal(signal.SIGSTOP)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM pg_locks WHERE pid IN ({SESSION})")
        assert cursor.fetchone() == (0,)
    assert running.session() == "notifies"


def test_emptied_log_is_named(tail: Callable[..., Tail], captured: HerokuConnect) -> None:
    captured.create(Account, 1)
    as_the_app(
        "UPDATE public.hc_signals_control SET emptied_at = clock_timestamp(), "
        "emptied_id = (SELECT max(id) FROM public.hc_signals_change)"
    )
    as_the_app("TRUNCATE public.hc_signals_change")
    running = tail("--since", "1h")
    wait_until(lambda: "Changes were emptied from the log before hc_tail could read them." in running.said)
    assert "\x1b" not in running.said + running.output
