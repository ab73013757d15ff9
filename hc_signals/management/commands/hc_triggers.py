"""``manage.py hc_triggers``: installs, inspects and removes the capture triggers."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError
from django.db.models import Model

from hc_signals.capture import orphans, outages, pausing, probe, table_state
from hc_signals.capture.install import install_sql, next_layout
from hc_signals.capture.status import TableStatus, status_of, statuses_of
from hc_signals.management.arguments import at_least
from hc_signals.management.choice import connected_model
from hc_signals.management.command import OwnCommand
from hc_signals.management.probing import Probing
from hc_signals.origins import is_variable
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.moments import shown
from hc_signals.tables import connected_models, table_label

Models = list[type[Model]]
_OPTIONS = {
    "check": "status",
    "remove": "pause",
    "all": "uninstall",
    "orphans": "uninstall",
    "seconds": "probe",
    "json": "probe",
    "variable": "probe",
}
"""By option the only action that takes it."""


def _variable(text: str) -> str:
    if not is_variable(text):
        raise ArgumentTypeError(f"{text!r} is no variable; expected a name with a dot, such as mirror.origin")
    return text.lower()


class Command(OwnCommand):
    help = (
        "Install, inspect, pause or remove the capture triggers on Heroku Connect's tables. `probe` shows for a time "
        "which statements reach the tables, and which of them ORIGINS captures; it exits 1 if one is not captured."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        add = parser.add_argument
        add("action", choices=["install", "status", "pause", "resume", "uninstall", "sql", "probe"])
        add("models", nargs="*", metavar="app.Model", help="default: all connected models; uninstall has no default")
        add("--check", action="store_true", help="with status: exit 1 on drift, pause or a missing column")
        text = "with pause: remove the triggers from the tables as well, table by table; `resume` puts them back"
        add("--remove", action="store_true", help=text)
        add("--all", action="store_true", help="with uninstall: all capture, orphans too")
        text = "with probe: end after this time; default: at Ctrl-C"
        add("--seconds", type=at_least(0.1), metavar="N", help=text)
        add("--json", action="store_true", help="with probe: one object per line")
        text = "with probe: also show this variable of the writers' sessions, such as mirror.origin"
        add("--variable", action="append", type=_variable, metavar="NAME", help=text)
        add("--orphans", action="store_true", help="with uninstall: only capture that no model uses")

    def handle(self, *args: Any, **options: Any) -> None:
        self.using, self.options = options["database"], options
        self._check_usage(options["action"], options["models"])
        chosen = [connected_model(label) for label in options["models"]] or connected_models()
        getattr(self, f"_{options['action']}")(chosen)

    def _check_usage(self, action: str, labels: list[str]) -> None:
        takes_all = self.options["all"] or self.options["orphans"]
        if labels and (takes_all or action in ("pause", "resume")):
            raise CommandError("Name no models here: the command acts on all tables.", returncode=2)
        if action == "uninstall" and not labels and not takes_all:
            text = "Nothing was removed. Name the models whose capture is to be removed (crm.Account), or say --all."
            raise CommandError(text, returncode=2)
        for option, of in _OPTIONS.items():
            if self.options[option] and action != of:
                raise CommandError(f"--{option} goes with `hc_triggers {of}` only.", returncode=2)

    def _install(self, chosen: Models) -> None:
        self.require_log(self.using)
        if pausing.find(self.using).is_removed:
            # No error: the release phase of a deployment must go on.
            self.stdout.write(f"{pausing.IS_REMOVED} `hc_triggers resume` puts it back.")
            return
        self._each(chosen, self._install_one, "installed")
        if probe.remove_abandoned(self.using):
            self.stdout.write("The triggers of a `hc_triggers probe` that was killed were removed.")

    def _install_one(self, model: type[Model]) -> None:
        if gap := outages.install(model, self.using):
            since = shown(gap.since) if gap.since else "an unknown time"
            more = "hc_listen reads again what Salesforce changed since" if gap.is_reread else "nothing is read again"
            self.stdout.write(f"{gap.table}: a gap since {since} is in the log ({gap.cause}); {more}.")

    def _each(self, chosen: Models, act: Callable[[type[Model]], None], done: str) -> None:
        """Act on each table; a table that stays locked does not keep the others from it."""
        failed: dict[str, DatabaseError] = {}
        for model in chosen:
            try:
                act(model)
                self._print(status_of(model, self.using))
            except DatabaseError as error:
                failed[model._meta.label] = error
        self._report(failed, done, "run the command again.")

    def _report(self, failed: Mapping[str, DatabaseError], done: str, advice: str) -> None:
        for label, error in failed.items():
            self.stderr.write(f"{label}: not {done}: {one_line(error)}")
        if failed:
            raise CommandError(f"Not {done}: {', '.join(failed)}. Nothing was half-done; {advice}")

    def _status(self, chosen: Models) -> None:
        found = statuses_of(chosen, self.using)
        if not self.options["models"]:
            found += orphans.find(chosen, self.using)
        of_tables = table_state.read(self.using)
        for status in found:
            self._print(status)
            if status.table in of_tables:
                self._print_known(of_tables[status.table])
        pause = pausing.find(self.using)
        if pause.since:
            how = "Paused, and taken off every table," if pause.is_removed else "Paused"
            self.stdout.write(f"{how} since {shown(pause.since)}: nothing is captured; run `hc_triggers resume`.")
        if pause.owed:
            self.stdout.write(f"The gap since {shown(pause.owed)} is not written; run `hc_triggers resume` again.")
        if self.options["check"]:
            self._check(found, bool(pause.since or pause.owed))

    def _check(self, found: Sequence[TableStatus], is_paused: bool) -> None:
        if is_paused:
            raise CommandError("Capture is paused; run `manage.py hc_triggers resume`.")
        if unsupported := [f"{status.table}: {status.detail}" for status in found if status.state == "unsupported"]:
            raise CommandError(f"Cannot be captured: {'; '.join(unsupported)}.")
        if lacking := [status.table for status in found if status.absent_columns]:
            raise CommandError(
                f"Tables that lack columns of their models, so that no change can be delivered: {', '.join(lacking)}; "
                "`manage.py hc_inspect --check` says what to do."
            )
        if any(status.is_drifted for status in found):
            raise CommandError("Triggers have drifted; run `manage.py hc_triggers install`.")

    def _pause(self, chosen: Models) -> None:
        since = pausing.pause(self.using, self.options["remove"])
        self.stdout.write(f"Paused since {shown(since)}. Changes from now on become a gap.")
        if self.options["remove"]:
            self._each(chosen, lambda model: pausing.remove(model, self.using, since), "taken off")
            self._remove_orphans(chosen, "paused")

    def _remove_orphans(self, known_models: Models, cause: str, uninstalled: bool = False) -> None:
        for status in orphans.remove(known_models, self.using, cause, uninstalled):
            self.stdout.write(f"{status.table}: removed")

    def _resume(self, chosen: Models) -> None:
        done = pausing.resume(self.using, chosen)
        if done is None:
            self.stdout.write("Capture is not paused.")
            return
        self.stdout.write(f"Capture is on; a gap since {shown(done.since)} is in the log.")
        if done.reread:
            self.stdout.write(f"hc_listen reads again what Salesforce changed since, in {len(done.reread)} table(s).")
        if done.unread:
            self.stdout.write(f"Not in {', '.join(done.unread)}, without systemmodstamp: `manage.py hc_backfill` does.")
        self._report(done.failed, "installed", "run `manage.py hc_triggers install`; the gap is reported then.")

    def _uninstall(self, chosen: Models) -> None:
        if not self.options["orphans"]:
            self._each(chosen, lambda model: outages.uninstall(model, self.using), "uninstalled")
        if self.options["all"] or self.options["orphans"]:
            self._remove_orphans(chosen, "uninstalled", uninstalled=self.options["all"])

    def _sql(self, chosen: Models) -> None:
        for model in chosen:
            statements = ["BEGIN", *install_sql(model, next_layout(model, self.using)), "COMMIT"]
            self.stdout.write(f"-- {table_label(model)}\n" + "".join(f"{each};\n" for each in statements))

    def _probe(self, chosen: Models) -> None:
        Probing(self.using, self.stdout, self.stderr, self.options).run(chosen)

    def _print_known(self, table: table_state.TableState) -> None:
        if table.uninstalled_at:
            self.stdout.write(f"  removed by `hc_triggers uninstall` on {shown(table.uninstalled_at)}")
        if table.good_at:
            self.stdout.write(f"  captured without a gap until {shown(table.good_at)} at least")
        if table.cause:
            self.stdout.write(f"  {table.cause}: hc_listen reports a gap once capture works again")
        if table.reread_since:
            after = f", now at id {table.reread_after}" if table.reread_after is not None else ""
            self.stdout.write(f"  changes since {shown(table.reread_since)} are being read again{after}")

    def _print(self, status: TableStatus) -> None:
        self.stdout.write(f"{status.table}: {status.state}" + (f" ({status.detail})" if status.detail else ""))
