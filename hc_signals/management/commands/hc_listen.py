"""``manage.py hc_listen``: the LISTEN worker that turns Salesforce changes into Django signals."""

import gc
import logging
import os
import signal
import threading
from argparse import ArgumentParser
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from django.core.management.base import CommandError
from django.db import Error, connections
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.capture import table_state, triggers
from hc_signals.conf import Conf, get_conf
from hc_signals.delivery.fatal_calls import end_run
from hc_signals.delivery.pulse import observe
from hc_signals.delivery.unheard import warn_of_unheard
from hc_signals.exceptions import ConfigurationError
from hc_signals.management.arguments import at_least, start_at, tcp_port
from hc_signals.management.command import OwnCommand
from hc_signals.observability.log_format import formatter, printed_log
from hc_signals.observability.metrics_server import serve_metrics
from hc_signals.postgres.errors import Kind, ReadOnlyError, kind_of, one_line
from hc_signals.postgres.own_connections import own_options
from hc_signals.tables import connected_models
from hc_signals.worker.crew import Crew
from hc_signals.worker.loop import Worker
from hc_signals.worker.threads import STUCK_SECONDS, as_helper


class Command(OwnCommand):
    help = "Deliver the changes that Heroku Connect makes to Django signal receivers, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="deliver all that is committed now, then exit 0")
        parser.add_argument(
            "--no-wait",
            action="store_true",
            help="exit 1 if the database cannot be reached or written to at the start (default: wait for it; --once "
            "never waits)",
        )
        parser.add_argument("--database", default="default", help="database alias (default: default)")
        parser.add_argument(
            "--concurrency",
            type=at_least(1),
            default=1,
            metavar="THREADS",
            help="threads that deliver, each with a connection of its own; HC_SIGNALS['SHARDS'] says how many can "
            "be at work (default: 1)",
        )
        parser.add_argument("--batch-size", type=int, help="changes per page (default: HC_SIGNALS['BATCH_SIZE'])")
        parser.add_argument(
            "--poll-interval", type=float, help="seconds between looks without a ring (default: HC_SIGNALS)"
        )
        parser.add_argument(
            "--start-at",
            type=start_at,
            metavar="WHERE",
            help="for a new consumer only: earliest, latest, an age such as 2h, or an ISO time (default: HC_SIGNALS)",
        )

        parser.add_argument("--log-format", choices=["text", "json"], default="text", help="default: text")
        parser.add_argument(
            "--metrics-port",
            type=tcp_port,
            metavar="PORT",
            help="serve /metrics for Prometheus and /healthz here (default: nowhere)",
        )
        parser.add_argument(
            "--metrics-host", default="127.0.0.1", metavar="ADDRESS", help="on this address (default: 127.0.0.1)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["once"] and options["metrics_port"] is not None:
            raise CommandError("--metrics-port needs a worker that stays: leave out --once.", returncode=2)
        using = options["database"]
        try:
            conf = _conf(options)
            self._formatter = formatter(options["log_format"], conf.CONSUMER)
            with printed_log(self.stderr, options["verbosity"], self._formatter), own_options(using):
                warn_of_unheard(conf)
                _trace()
                worker = self._once(using, conf) if options["once"] else self._listen(using, conf, options)
        except (ConfigurationError, ConnectionDoesNotExist) as error:
            raise CommandError(str(error)) from error
        except ReadOnlyError as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(f"The database {using!r} answered: {one_line(error)}") from error
        unheard = f", {worker.unheard} of them to no receiver" if worker.unheard else ""
        self._say(f"hc_listen: {worker.delivered} changes delivered{unheard}; stopped.")

    def _say(self, text: str) -> None:
        """Write a line of the command itself, in the form of the log."""
        record = logging.makeLogRecord({"name": "hc_signals", "levelname": "INFO", "msg": text})
        self.stderr.write(self._formatter.format(record))

    def _once(self, using: str, conf: Conf) -> Worker:
        _check_database(using)
        worker = Worker(using, conf, is_process=True)
        try:
            worker.deliver_once()
        finally:
            end_run(using)
        return worker

    def _listen(self, using: str, conf: Conf, options: dict[str, Any]) -> Crew:
        threads = options["concurrency"]
        if threads > conf.SHARDS:
            logging.getLogger("hc_signals").warning(
                "%s threads are too many for HC_SIGNALS['SHARDS'] = %s; %s will do.", threads, conf.SHARDS, conf.SHARDS
            )
        crew = Crew(using, conf, min(threads, conf.SHARDS))
        _stop_on_signals(crew.stopping)
        gc.freeze()  # the project's code stays to the end: it need not be looked through again with every few pages
        with ExitStack() as stack:
            if options["metrics_port"] is not None:
                host = options["metrics_host"]
                server = stack.enter_context(serve_metrics(host, options["metrics_port"], crew))
                self._say(f"hc_listen: /metrics and /healthz on http://{host}:{server.port}/")
            if options["no_wait"]:
                _check_database(using)
            else:
                _wait_for_database(using, crew.stopping)
            if not crew.stopping.is_set():
                self._say(f"hc_listen: listening on {using!r} as consumer {conf.CONSUMER!r}.")
                crew.run()
        return crew


def _conf(options: dict[str, Any]) -> Conf:
    given = {
        "BATCH_SIZE": options["batch_size"],
        "POLL_INTERVAL": options["poll_interval"],
        "START_AT": options["start_at"],
    }
    return replace(get_conf(), **{key: value for key, value in given.items() if value is not None})


def _wait_for_database(using: str, stopping: threading.Event) -> None:
    """Wait until the database can be reached and written to, or ``stopping`` is set.

    Also where the password is wrong or the database does not exist: a server that refuses a connection gives its reason
    in words only, and credentials that are just being changed are right a moment later.

    Raises:
        CommandError: only a person can mend what is wrong.
        Error: the same, in the server's words.
    """
    with as_helper("start", STUCK_SECONDS) as helper:
        trouble = helper.trouble("The start")
        while not stopping.is_set():
            helper.turn()
            try:
                _check_database(using)
            except Error as error:
                if kind_of(error) is Kind.FAULT:
                    raise
                connections[using].close()
                pause = trouble.happens(error)
                helper.turn(pause)
                stopping.wait(pause)
            else:
                trouble.ends()
                return


def _check_database(using: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool, "
            "to_regclass('public.hc_signals_change') IS NOT NULL"
        )
        in_recovery, is_read_only, has_log = cursor.fetchone()
    if in_recovery:
        raise ReadOnlyError(f"The database {using!r} is a follower: LISTEN does not work there; use the leader's URL.")
    if is_read_only:
        raise ReadOnlyError(
            f"The database {using!r} is read-only: see default_transaction_read_only of database and role."
        )
    if not has_log:
        raise CommandError("The change log does not exist; run `manage.py migrate hc_signals` first.")
    found = triggers.statuses(connected_models(), using)
    was_captured = any(each.uninstalled_at is None for each in table_state.read(using).values())
    if not was_captured and not any(status.state in ("installed", "outdated") for status in found):
        raise CommandError("No connected table carries capture triggers; run `manage.py hc_triggers install` first.")
    for status in found:
        if status.state != "installed":
            logging.getLogger("hc_signals").warning(
                "Capture on %s: %s (%s).", status.table, status.state, status.detail
            )


def _stop_on_signals(stopping: threading.Event) -> None:
    def handler(number: int, frame: Any) -> None:
        if stopping.is_set():
            os._exit(1)  # asked twice: now, whatever a receiver is at; the server takes back what was not committed
        stopping.set()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def _trace() -> None:
    """Make spans where OpenTelemetry is installed and the project has set it up."""
    try:
        from hc_signals.observability import tracing
    except ImportError:
        return
    if tracing.is_set_up():
        observe(tracing.Tracing())
