"""``hc_triggers probe``: shows which statements reach the connected tables, and which of them ORIGINS captures."""

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError, Error
from django.db.models import Model

from hc_signals.capture import pausing, probe
from hc_signals.capture.probe import Statement
from hc_signals.capture.status import compare, find_tables
from hc_signals.checks.own_origin import fitting_rules
from hc_signals.conf import get_conf, origin_rules
from hc_signals.exceptions import ConfigurationError
from hc_signals.management.interruption import interruptible
from hc_signals.management.tail_lines import visible
from hc_signals.origins import labels, parse_rules
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.held_lock import HeldLock
from hc_signals.postgres.moments import shown, zone_name

_SLICE = 0.2
"""Seconds between two readings of the notes."""
_LOCK_SECONDS = 2.0
"""How long to try for the lock: the trigger of a writer may have it for a moment."""


class Probing:
    """One run of the command.

    Args:
        using: database alias.
        out: where the statements go, a command's ``stdout``.
        err: where everything else goes while it runs.
        options: ``seconds`` (None: until Ctrl-C), ``json``, ``variable`` (names, or None).
    """

    def __init__(self, using: str, out: Any, err: Any, options: Mapping[str, Any]) -> None:
        self._using, self._out, self._err = using, out, err
        self._seconds, self._as_json = options["seconds"], options["json"]
        of_rules = [rule.setting for rule in origin_rules() if "." in rule.setting]
        self._variables = list(dict.fromkeys([*of_rules, *(options["variable"] or ())]))
        self._seen: list[tuple[Statement, bool]] = []
        self._captured: dict[str, bool] = {}
        """By table, whether its triggers work."""
        self._as_replica: set[str] = set()
        """Tables whose triggers fire for ``session_replication_role = replica`` as well."""

    def run(self, models: Sequence[type[Model]]) -> None:
        """Probe the tables of these models.

        Raises:
            CommandError: a statement was not captured, none was seen, or another probe is running.
        """
        lock = HeldLock(self._using, "hc_triggers probe")
        with interruptible() as interruption:
            try:
                self._take(lock)
                probe.prepare(self._using)
                try:
                    self._install(models)
                    deadline = time.monotonic() + (self._seconds or float("inf"))
                    while not interruption and time.monotonic() < deadline:
                        lock.confirm()
                        self._read()
                        interruption.sleep(min(_SLICE, max(0.0, deadline - time.monotonic())))
                    self._read()
                finally:
                    self._remove()
            finally:
                lock.close()
        self._report()

    def _take(self, lock: HeldLock) -> None:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not lock.take(probe.IS_ENDED, []):
            if time.monotonic() > deadline:
                raise CommandError("Another `hc_triggers probe` runs on this database; wait for its end, or end it.")
            time.sleep(_SLICE)

    def _install(self, models: Sequence[type[Model]]) -> None:
        is_paused = bool(pausing.find(self._using).since)
        if is_paused:
            self._say("Capture is paused: nothing is captured until `hc_triggers resume`.")
        probed = []
        for model, found in zip(models, find_tables(models, self._using), strict=True):
            status = compare(model, found)
            if found.oid is None:
                self._say(f"{status.table}: {status.state} ({status.detail}); not probed.")
                continue
            try:
                probe.install(model, self._using, self._variables)
            except DatabaseError as error:
                self._say(f"{status.table}: not probed: {one_line(error)}")
                continue
            probed.append(status.table)
            self._captured[status.table] = status.is_captured and not status.has_stale_triggers and not is_paused
            if all(trigger[0] == "A" for trigger in found.triggers.values()):
                self._as_replica.add(status.table)
            if status.state != "installed" or status.aside:
                self._say(f"{status.table}: {status.state} ({status.detail}).")
        if not probed:
            raise CommandError("No table was probed; see above.")
        end = f"for {self._seconds:g} s" if self._seconds else "until Ctrl-C"
        self._say(f"Probing {', '.join(probed)} {end}; times in {zone_name()}. Let the tool write now.")
        self._say(f"ORIGINS has {', '.join(labels(origin_rules()))}.")

    def _remove(self) -> None:
        try:
            probe.remove(self._using)
        except Error as error:
            self._say(
                f"The probe's triggers could not all be removed ({one_line(error)}). They do nothing now; the next "
                "probe, `hc_triggers install` or hc_listen removes them."
            )

    def _say(self, text: str) -> None:
        self._err.write(text, str)

    def _read(self) -> None:
        for statement in probe.take(self._using):
            is_captured = (
                statement.fits
                and self._captured.get(statement.table, False)
                and (statement.replication_role != "replica" or statement.table in self._as_replica)
            )
            if statement.rows != 0:
                self._seen.append((statement, is_captured))
            self._write(_as_json(statement, is_captured) if self._as_json else _line(statement, is_captured))

    def _write(self, line: str) -> None:
        self._out.write(line)
        self._out.flush()

    def _report(self) -> None:
        missed = [statement for statement, is_captured in self._seen if not is_captured]
        advice = self._advice([statement for statement in missed if not statement.fits])
        if self._as_json:
            summary = {"statements": len(self._seen), "captured": len(self._seen) - len(missed), "origins": advice}
            self._write(json.dumps({"summary": summary}))
        elif self._seen:
            self._write("\n" + "\n".join(_table(self._seen)))
            if advice:
                self._write(
                    "\nTo capture the others as well, write this into HC_SIGNALS, and run `manage.py hc_triggers "
                    f"install`:"
                    f'\n\n    "ORIGINS": {json.dumps(advice)},\n'
                )
        if not self._seen:
            raise CommandError("No statement with rows has reached these tables; let the tool write during the probe.")
        if missed:
            reason = "" if advice else f" {self._obstacle(missed)}"
            raise CommandError(f"{len(missed)} of {len(self._seen)} statements with rows were not captured.{reason}")

    def _advice(self, missed: Sequence[Statement]) -> list[Any]:
        """Return ORIGINS with a rule for each writer that no rule fits; empty if none can be named."""
        found = [rule for rule in map(self._rule_for, missed) if rule]
        new = list({json.dumps(rule): rule for rule in found}.values())
        return [*get_conf().ORIGINS, *new] if new else []

    def _rule_for(self, statement: Statement) -> dict[str, str] | None:
        """Return a rule for the writer that this project's own sessions do not fit."""
        # PgBouncer with application_name_add_host appends an address and a port.
        name = re.sub(r" - [\w.:\[\]]+:\d+$", " - *", statement.application_name)
        variables = [{"variable": key, "value": value} for key, value in statement.variables.items() if value]
        for rule in (*variables, {"application_name": name}, {"role": statement.session_role}):
            try:
                if not fitting_rules(self._using, parse_rules([rule])):
                    return rule
            except ConfigurationError:
                continue  # an empty name, or one with characters that no rule takes
        return None

    def _obstacle(self, missed: Sequence[Statement]) -> str:
        if any(statement.fits for statement in missed):
            return "A rule fits them, but the triggers do not work: see `manage.py hc_triggers status`."
        return "Their sessions look like this project's own: give the tool an application_name of its own."


def _kind(statement: Statement) -> str:
    same = statement.statement == statement.operation
    return statement.operation if same else f"{statement.operation} by {statement.statement}"


def _writer(statement: Statement) -> str:
    parts = [f"application_name {statement.application_name!r}", f"role {statement.session_role}"]
    if statement.current_role != statement.session_role:
        parts.append(f"as {statement.current_role}")
    parts += [f"xmlbinary {statement.xmlbinary}"] * (statement.xmlbinary != "base64")
    parts += ["replica"] * (statement.replication_role == "replica")
    parts += [f"{name}={value}" for name, value in statement.variables.items() if value]
    return visible(", ".join(parts))


def _outcome(statement: Statement, is_captured: bool) -> str:
    if statement.rows == 0:
        return ""
    if is_captured:
        return f"captured ({statement.origin})"
    return "not captured" + (f" ({statement.origin}, but see above)" if statement.fits else "")


def _line(statement: Statement, is_captured: bool) -> str:
    number = "" if statement.rows is None else f"{statement.rows} row{'s' * (statement.rows != 1)}"
    at = shown(statement.at, zone=False)
    cells = (
        at,
        visible(statement.table),
        _kind(statement),
        number,
        _writer(statement),
        _outcome(statement, is_captured),
    )
    return "  ".join(filter(None, cells))


def _as_json(statement: Statement, is_captured: bool) -> str:
    return json.dumps({**vars(statement), "at": statement.at.isoformat(), "captured": is_captured})


def _table(seen: Sequence[tuple[Statement, bool]]) -> list[str]:
    """Return the statements, counted by kind and writer."""
    counts: Counter[tuple[str, str, str]] = Counter()
    changed: dict[tuple[str, str, str], int] = defaultdict(int)
    for statement, is_captured in seen:
        key = (_kind(statement), _writer(statement), _outcome(statement, is_captured))
        counts[key] += 1
        changed[key] += statement.rows or 0
    lines = [("statements", "rows", "kind", "writer", "")]
    lines += [(str(count), str(changed[key]), *key) for key, count in sorted(counts.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [_padded(line, widths) for line in lines]


def _padded(line: Sequence[str], widths: Sequence[int]) -> str:
    """Return the cells side by side; the two numbers to the right."""
    numbers = [cell.rjust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
    texts = [cell.ljust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
    return "  ".join((*numbers, *texts)).rstrip()
