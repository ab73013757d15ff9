"""``manage.py hc_listen``: the worker process that sends a Django signal for each change in the log."""

import gc
import logging
import threading
from argparse import ArgumentParser
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from django.core.management.base import CommandError
from django.db import Error, connections

from hc_signals.capture import table_state
from hc_signals.capture.status import log_fault, statuses_of
from hc_signals.conf import Conf, get_conf
from hc_signals.delivery.counting import Counting
from hc_signals.delivery.failure_log import log_counted
from hc_signals.delivery.fatal_calls import end_run
from hc_signals.delivery.listeners import warn_of_unheard
from hc_signals.delivery.pulse import observe, unobserve
from hc_signals.management.arguments import at_least, start_at, tcp_port
from hc_signals.management.command import OwnCommand
from hc_signals.management.interruption import end_with_main_thread, interruptible
from hc_signals.observability.log_format import JsonFormatter, TextFormatter, printed_log
from hc_signals.observability.measuring import measured
from hc_signals.observability.metrics_server import serve_metrics
from hc_signals.postgres.errors import Kind, ReadOnlyError, kind_of
from hc_signals.postgres.own_connections import own_options
from hc_signals.postgres.query import row
from hc_signals.tables import connected_models
from hc_signals.worker.chores import Chore
from hc_signals.worker.crew import Crew
from hc_signals.worker.loop import Worker
from hc_signals.worker.minutes import Minutes
from hc_signals.worker.threads import STUCK_SECONDS, as_helper
from hc_signals.writes.children import RefusedChildren

logger = logging.getLogger("hc_signals")


class Command(OwnCommand):
    help = "Send a Django signal for each change that Heroku Connect makes, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--once", action="store_true", help="deliver what is committed now, then exit 0")
        add = parser.add_argument
        text = "exit 1 if the database cannot be reached or written to at the start (default: wait; --once never waits)"
        add("--no-wait", action="store_true", help=text)
        text = "threads that deliver, each with its own connection; at most HC_SIGNALS['SHARDS'] have work (default: 1)"
        add("--concurrency", type=at_least(1), default=1, metavar="THREADS", help=text)
        add("--batch-size", type=int, help="changes per page (default: HC_SIGNALS['BATCH_SIZE'])")
        add("--poll-interval", type=float, help="seconds until an idle worker reads the log (default: HC_SIGNALS)")
        text = "for a new consumer only: earliest, latest, an age such as 2h, or an ISO time (default: HC_SIGNALS)"
        add("--start-at", type=start_at, metavar="WHERE", help=text)
        text = "print the log in this format (default: by the project's LOGGING if it prints to a console, else text)"
        add("--log-format", choices=["text", "json"], help=text)
        text = "serve /metrics for Prometheus and /healthz on this port (default: not at all)"
        add("--metrics-port", type=tcp_port, metavar="PORT", help=text)
        add("--metrics-host", default="127.0.0.1", metavar="ADDRESS", help="serve them here (default: 127.0.0.1)")
        text = "push the same metrics by OpenTelemetry's protocol; see the variables OTEL_EXPORTER_OTLP_ENDPOINT, ..."
        add("--otlp-metrics", action="store_true", help=text)

    def handle(self, *args: Any, **options: Any) -> None:
        for option, is_given in (
            ("metrics-port", options["metrics_port"] is not None),
            ("otlp-metrics", options["otlp_metrics"]),
        ):
            if options["once"] and is_given:
                raise CommandError(f"--{option} needs a worker that stays: leave out --once.", returncode=2)
        using = options["database"]
        conf = _conf(options)
        self._formatter = JsonFormatter(conf.CONSUMER) if options["log_format"] == "json" else TextFormatter()
        self._is_quiet = not options["verbosity"]
        is_chosen = options["log_format"] is not None
        printed = printed_log(self.stderr, options["verbosity"], self._formatter, is_chosen=is_chosen)
        with printed, own_options(using):
            warn_of_unheard(conf)
            _trace()
            self._refused = RefusedChildren(using, conf)
            self._refused.watch()
            try:
                worker = self._once(using, conf) if options["once"] else self._listen(using, conf, options)
            finally:
                log_counted()
        unheard = f", {worker.unheard} of them to no receiver" if worker.unheard else ""
        self._say(f"hc_listen: {worker.delivered} changes delivered{unheard}; stopped.")
        if not options["once"] and threading.current_thread() is threading.main_thread():
            end_with_main_thread()

    def _say(self, text: str) -> None:
        """Write a line of the command itself, in the form of the log; none with ``-v 0``."""
        if self._is_quiet:
            return
        record = logging.makeLogRecord({"name": "hc_signals", "levelname": "INFO", "msg": text})
        self.stderr.write(self._formatter.format(record))

    def _once(self, using: str, conf: Conf) -> Worker:
        self._check_database(using)
        for status in statuses_of(connected_models(), using):  # the chores of a worker that stays do it for that one
            log_fault(status)
        worker, counting = Worker(using, conf, is_process=True), Counting()
        observe(counting)
        try:
            worker.deliver_once()
        finally:
            unobserve(counting)
            end_run(using)
        Minutes(using, conf, counting).append_last()
        return worker

    def _listen(self, using: str, conf: Conf, options: dict[str, Any]) -> Crew:
        threads = options["concurrency"]
        if threads > conf.SHARDS:
            text = "%s threads are too many for HC_SIGNALS['SHARDS'] = %s; %s will do."
            logger.warning(text, threads, conf.SHARDS, conf.SHARDS)
        chores = [Chore("retry of refused children", self._refused.run)] if self._refused.children else []
        crew = Crew(using, conf, min(threads, conf.SHARDS), chores=chores)
        gc.freeze()  # the project's code stays to the end: the collector need not read it with every few pages
        with ExitStack() as stack:
            stack.enter_context(interruptible(crew.stopping))
            if options["metrics_port"] is not None or options["otlp_metrics"]:
                self._report(stack, crew, options)
            if options["no_wait"]:
                self._check_database(using)
            else:
                self._wait_for_database(using, crew.stopping)
            if not crew.stopping.is_set():
                self._say(f"hc_listen: listening on {using!r} as consumer {conf.CONSUMER!r}.")
                crew.run()
        return crew

    def _report(self, stack: ExitStack, crew: Crew, options: dict[str, Any]) -> None:
        """Serve or push the metrics, until the stack ends."""
        metrics = stack.enter_context(measured(crew))
        if options["metrics_port"] is not None:
            host = options["metrics_host"]
            server = stack.enter_context(serve_metrics(host, options["metrics_port"], crew, metrics))
            self._say(f"hc_listen: /metrics and /healthz on http://{host}:{server.port}/")
        if options["otlp_metrics"]:
            from hc_signals.observability.otlp import push_metrics

            self._say(f"hc_listen: metrics are pushed to {stack.enter_context(push_metrics(metrics))}")

    def _wait_for_database(self, using: str, stopping: threading.Event) -> None:
        """Wait until the database can be reached and written to, or ``stopping`` is set; raise what only people repair.

        It waits for a right password and for the database as well: the server gives such a reason in words only, and
        credentials that are just being changed are right a moment later.
        """
        with as_helper("start", STUCK_SECONDS) as helper:
            trouble = helper.trouble("The start")
            while not stopping.is_set():
                helper.turn()
                try:
                    self._check_database(using)
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

    def _check_database(self, using: str) -> None:
        sql = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool"
        in_recovery, is_read_only = row(using, sql)
        name = f"The database {using!r}"
        if in_recovery:
            raise ReadOnlyError(f"{name} is a follower: LISTEN does not work there; use the leader's URL.")
        if is_read_only:
            raise ReadOnlyError(f"{name} is read-only: see default_transaction_read_only of database and role.")
        self.require_log(using)
        was_captured = any(not each.is_uninstalled for each in table_state.read(using).values())
        if not was_captured and not any(status.is_captured for status in statuses_of(connected_models(), using)):
            raise CommandError("No connected table has capture triggers; run `manage.py hc_triggers install` first.")


def _conf(options: dict[str, Any]) -> Conf:
    given = {key: options[key.lower()] for key in ("BATCH_SIZE", "POLL_INTERVAL", "START_AT")}
    return replace(get_conf(), **{key: value for key, value in given.items() if value is not None})


def _trace() -> None:
    """Send spans if OpenTelemetry is installed and the project has set it up."""
    try:
        from hc_signals.observability import tracing
    except ImportError:
        return
    if tracing.is_set_up():
        observe(tracing.Tracing())
