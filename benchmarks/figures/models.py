"""What 1, 50 and 300 connected models cost a worker: before its first page, and each check of its watch over capture.

A model has 25 columns. The watch checks capture each ``WATCH_SECONDS``, in a thread of its own. Its first check also
generates the source of each capture function, to compare it with the installed one.
"""

import time

from django.db import connection

from benchmarks.figures.capture import made_table
from benchmarks.options import Options
from benchmarks.rows import Row, alternate, say
from benchmarks.server import Server
from hc_signals.capture import installed, status, table_state
from hc_signals.capture.drift import check_tables
from hc_signals.capture.install import install_capture
from hc_signals.capture.repairing import Repairs
from hc_signals.conf import Conf
from hc_signals.db import models as hc_models
from hc_signals.worker.loop import Worker

NUMBERS = (1, 50, 300)
LIMIT = 40.0
"""Most milliseconds with 300 models."""
WHAT = {
    "check": "a check of the watch",
    "first": "its first check in a new process",
    "start": "what a new worker reads and makes of them before its first page",
}


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure."""
    say(f"models: creating {NUMBERS[-1]} tables")
    models = [_captured(number) for number in range(NUMBERS[-1])]
    Repairs("default", Conf(), models).run()  # records that they are captured
    runs = {}
    for number in NUMBERS:
        runs[f"start, {number}"] = lambda chosen=models[:number]: _start(chosen)  # type: ignore[misc]
        runs[f"first, {number}"] = lambda chosen=models[:number]: _milliseconds(chosen, is_first=True)  # type: ignore[misc]
        runs[f"check, {number}"] = lambda chosen=models[:number]: _milliseconds(chosen)  # type: ignore[misc]
    least = {name: min(found) for name, found in alternate("models", options, runs, unit="ms").items()}
    rows = []
    for number in NUMBERS:
        for name, what in WHAT.items():
            measured = least[f"{name}, {number}"]
            limit = LIMIT if number == NUMBERS[-1] and name != "first" else None
            shown = f"{measured:.1f} ms"
            rows.append(Row("models", f"{number} models, {what}", shown, "", measured, "ms", at_most=limit))
    return rows


def _captured(number: int) -> type[hc_models.HerokuConnectModel]:
    model = made_table(f"many_{number}", 25, 1)
    install_capture(model, "default")
    return model


def _start(models: list[type[hc_models.HerokuConnectModel]]) -> float:
    """Return how long hc_listen takes to make a worker of these models, once it has found that some are captured."""
    began = time.perf_counter()
    if not table_state.read("default"):
        raise RuntimeError("no table has a state")
    Worker("default", Conf(), models)
    return (time.perf_counter() - began) * 1e3


def _milliseconds(models: list[type[hc_models.HerokuConnectModel]], *, is_first: bool = False) -> float:
    """Return how long one check takes; ``is_first``: nothing is remembered of earlier ones."""
    if is_first:
        for remembered in (installed._body_digest, status._layout, status._absent_columns):
            remembered.cache_clear()
        connection.close()  # the sources that its session has read are forgotten too
        connection.ensure_connection()
    began = time.perf_counter()
    found = check_tables(models, "default")
    seconds = time.perf_counter() - began
    if any(check.status.state != "installed" for check in found):
        raise RuntimeError("a table is not captured")
    return seconds * 1e3
