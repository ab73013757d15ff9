"""``manage.py hc_tail``: prints changes as they commit."""

import difflib
import shutil
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandError
from django.db import Error
from django.db.models import Model

from hc_signals.delivery.routing import ROUTES
from hc_signals.log.restoring import FAILED_OVER, RESTORED
from hc_signals.log.schema import Cause
from hc_signals.log.tail import Chosen, Place, Reading, read, start, start_at, start_with_newest
from hc_signals.management.arguments import at_least, moment_or_replay_id
from hc_signals.management.choice import connected_model
from hc_signals.management.command import OwnCommand
from hc_signals.management.interruption import interruptible, suspendable
from hc_signals.management.outlet import Outlet
from hc_signals.management.tail_lines import TextLines, json_line
from hc_signals.management.tail_session import TailSession
from hc_signals.observability.log_format import TextFormatter, printed_log
from hc_signals.postgres.moments import zone_name
from hc_signals.postgres.own_connections import own_options
from hc_signals.postgres.trouble import Trouble
from hc_signals.tables import connected_models, connected_tables_of, table_label

TYPES = tuple(dict.fromkeys(route.change_type for route in ROUTES.values()))
"""The change types that the log can have."""
MISSED = {
    Cause.EMPTIED: "Changes were emptied from the log before hc_tail could read them",
    Cause.CAPTURE_FAILED: "A statement was not captured: its changes are not in the log; hc_listen sends gap_detected",
    RESTORED: "Another database answers: it was restored or replaced. hc_tail begins again with the next change",
    FAILED_OVER: "Another server answers: it was promoted or recovered. Changes may be missing or repeated here",
}
"""What hc_tail says of :attr:`~hc_signals.log.tail.Reading.missed`."""
STYLES = {"CREATE": "SUCCESS", "UPDATE": "WARNING", "DELETE": "ERROR", "GAP_OVERFLOW": "NOTICE", "record": "SQL_TABLE"}
"""Django's styles by change type, and that of a record's name."""


class Command(OwnCommand):
    help = (
        "Print changes as they commit, one line each, until Ctrl-C. No position moves: hc_tail reads the log beside "
        "the workers, and may run anywhere, on a follower too. It exits 0 after Ctrl-C, SIGTERM, and a closed pipe."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        add = parser.add_argument
        add("--model", nargs="+", action="extend", metavar="app.Model", help="default: all tables of the log")
        add("--record", nargs="+", action="extend", metavar="SFID", help="of 15 or 18 characters, or a row's id")
        text = "only updates that changed one of these fields, separated by commas; shows only them"
        add("--fields", type=_names, metavar="a,b", default=(), help=text)
        text = f"only these: {', '.join(TYPES)}"
        add("--type", nargs="+", action="extend", type=str.upper, choices=TYPES, metavar="CREATE", help=text)
        begin = parser.add_mutually_exclusive_group()
        text = "begin with this change or time (90m, 2h, 3d, ISO 8601); default: the next change"
        begin.add_argument("--since", type=moment_or_replay_id, metavar="TIME|REPLAY_ID", help=text)
        begin.add_argument(
            "-n", type=at_least(1), metavar="NUMBER", dest="newest", help="begin with the newest changes"
        )
        add("--json", action="store_true", help="one object per line, with everything; as events name it")

    def handle(self, *args: Any, **options: Any) -> None:
        self.using = options["database"]
        chosen = _chosen(options)
        self.lines = json_line if options["json"] else TextLines(self._width, self._styles(), options["fields"])
        formatter = TextFormatter()
        session = TailSession(self.using)
        with (
            interruptible() as self.interruption,
            suspendable(session.close) as self.suspension,
            printed_log(self.stderr, options["verbosity"], formatter),
            own_options(self.using),
        ):
            self.require_log(self.using)
            session.connect()
            place = self._start(options, chosen)
            if not options["json"]:
                self.stderr.write(f"hc_tail of {self.using!r}; times in {zone_name()}; Ctrl-C ends it.", str)
            self.outlet = Outlet(self.stdout._out, lambda: self._waits(session))
            try:
                self._follow(session, place, chosen)
            except BrokenPipeError:
                pass  # `| head` has got what it wanted
            finally:
                session.close()

    def _start(self, options: dict[str, Any], chosen: Chosen) -> Place:
        if options["since"]:
            return start_at(self.using, options["since"])
        return start_with_newest(self.using, options["newest"], chosen) if options["newest"] else start(self.using)

    def _follow(self, session: TailSession, place: Place, chosen: Chosen) -> None:
        trouble = Trouble("hc_tail", longest=5.0)
        while not self.interruption:
            self.suspension.turn()
            try:
                session.connect()
                reading = read(self.using, place, chosen)
                trouble.ends()
                place = reading.place
                self._write(session, reading)
                if not reading.more:
                    self.outlet.check()
                    session.wait()
            except Error as error:
                session.close()
                self.interruption.sleep(trouble.happens(error))

    def _write(self, session: TailSession, reading: Reading) -> None:
        for cause in reading.missed:
            self.stderr.write(f"hc_tail: {MISSED[cause]}.", str)
            if cause in (RESTORED, FAILED_OVER):
                session.close()
        for found in reading.changes:
            if self.interruption:
                return
            self.outlet.write(self.lines(found))

    def _waits(self, session: TailSession) -> bool:
        """Close the session while the reader of the output takes nothing; return False once a signal has arrived."""
        session.close()
        self.suspension.turn()
        return not self.interruption

    def _width(self) -> int:
        return shutil.get_terminal_size().columns if self.stdout.isatty() else 0

    def _styles(self) -> dict[str, Any]:
        return {kind: getattr(self.style, style) for kind, style in STYLES.items()}


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _chosen(options: dict[str, Any]) -> Chosen:
    models = [connected_model(label) for label in options["model"] or ()]
    operations = [name for name, route in ROUTES.items() if route.change_type in (options["type"] or ())]
    tables = frozenset(table_label(each) for model in models for each in connected_tables_of(model))
    records = frozenset(options["record"] or ())
    return Chosen(tables, frozenset(operations), records, _columns(options["fields"], models))


def _columns(names: Iterable[str], models: list[type[Model]]) -> dict[str, frozenset[str]]:
    """Return the columns with these names, by table; raise a CommandError for a name that no table has."""
    fields = {table_label(model): model._meta.local_concrete_fields for model in models or connected_models()}
    known = {field.name for of_table in fields.values() for field in of_table}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise CommandError(f"The chosen models have no field {name!r}; did you mean {' or '.join(near)}?")
    found = {table: frozenset(str(f.column) for f in of if f.name in names) for table, of in fields.items()}
    return {table: columns for table, columns in found.items() if columns}
